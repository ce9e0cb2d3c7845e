"""Target `ray`: a thin job on a Ray cluster, by the Jobs API of its head (`http://host:8265`), with token authentication.

Spoken in plain HTTP: no ray is imported here, and an address where nobody listens is told at once. The cluster's nodes have
the store's keys in their own environment; what is sent can be read by everyone who sees the cluster's jobs.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import socket
import time
import urllib.error
import urllib.request
from importlib import metadata
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from cluster.room import GROUPS, GROWS, Node, NodeGroup, grown
from cluster.store.base import scrub
from cluster.targets.base import Handle, Progress, Target, Ticket, refuse_local_store
from tlgan.errors import BackendError, Conflict, TlganError

TIMEOUT_SECONDS = 20.0
CONNECT_SECONDS = 4.0
NODES_SECONDS = 3.0  # a cluster that has just started does not list its nodes yet
STATES: dict[str, Literal["pending", "running", "ended"]] = {"PENDING": "pending", "RUNNING": "running"}


class RayTarget(Target):
    kind: Literal["ray"] = "ray"
    address: str = Field(..., description="of the head's dashboard, as in http://10.0.0.1:8265")
    auth: str = Field("RAY_AUTH_TOKEN", description="name of the variable that holds the cluster's token")
    python: str = Field("python", description="the interpreter on the head that has tlgan and its packages")
    grows: list[NodeGroup] = Field([], description="what the cluster's autoscaler may start: {nodes, cpus, gpus} each")

    @field_validator("address")
    @classmethod
    def _http(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("expected the address of a Ray dashboard, as in http://10.0.0.1:8265, without a password")
        return address.rstrip("/")

    @property
    def can_probe(self) -> bool:
        return True

    def where(self) -> str:
        return f"the cluster {self.name}"

    def refuse(self, ticket: Ticket) -> None:
        if not self._is_here:
            refuse_local_store(ticket, self)

    def nodes(self) -> list[Node] | None:
        deadline = time.monotonic() + NODES_SECONDS
        while True:
            found = self._call("GET", "/api/v0/nodes?detail=true&limit=1000")["data"]["result"]["result"]
            alive = [node["resources_total"] for node in found if node["state"] == "ALIVE"]
            if alive or time.monotonic() > deadline:
                return grown(alive, self.grows)
            time.sleep(0.2)

    def request(self, ticket: Ticket) -> dict[str, Any]:
        driver = ticket.driver
        grows = {GROWS: GROUPS.dump_json(self.grows).decode()} if self.grows else {}
        return {
            "entrypoint": shlex.join([self.python, *ticket.arguments]),
            "submission_id": f"tlgan-{ticket.run}-{ticket.submission}",
            "runtime_env": {"env_vars": {**ticket.variables(), **grows, **self.env}},
            "metadata": {"tlgan_run": ticket.run, "tlgan_kind": ticket.kind},
            "entrypoint_num_cpus": driver.cpus_per_worker if driver else 0,
            "entrypoint_num_gpus": driver.gpus_per_worker if driver else 0,
        }

    def start(self, ticket: Ticket) -> Handle:
        asked = self.request(ticket)
        self._call("POST", "/api/jobs/", asked)
        return {"job": asked["submission_id"], "address": self.address}

    def progress(self, handle: Handle) -> Progress:
        try:
            found = self._call("GET", f"/api/jobs/{handle['job']}")
        except _Missing:
            return Progress("ended", f"the cluster knows no job {handle['job']}")
        said = " ".join(str(found.get("message") or "").split())
        return Progress(STATES.get(found["status"], "ended"), f"{found['status']}: {scrub(said)}"[:500])

    def end(self, handle: Handle) -> None:
        self._call("POST", f"/api/jobs/{handle['job']}/stop")

    def findings(self) -> list[tuple[str, str]]:
        version = self._call("GET", "/api/version")["ray_version"]
        own = metadata.version("ray")
        nodes = self.nodes() or []
        total = {what: sum(node.get(what, 0.0) for node in nodes) for what in ("CPU", "GPU")}
        token = f"from {self.auth}" if os.environ.get(self.auth) else f"none ({self.auth} is not set)"
        return [
            ("address", self.address),
            ("token", token),
            ("ray", version if version == own else f"{version}, here {own}: versions should be equal"),
            (
                "nodes",
                f"{'at most ' if self.grows else ''}{len(nodes)} with {total['CPU']:g} CPUs and {total['GPU']:g} GPUs",
            ),
        ]

    @property
    def _is_here(self) -> bool:
        host = str(urlsplit(self.address).hostname)
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host in ("localhost", socket.gethostname())

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer, parsed. Raises `BackendError` for an address without an answer and for a refused token."""
        self._reach()
        request = urllib.request.Request(self.address + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if token := os.environ.get(self.auth):
            request.add_header("Authorization", f"Bearer {token.strip()}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if self._is_here else None))
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BackendError(
                f"target {self.name}: {self.address} gives no answer that makes sense: {scrub(error)}",
                hint="the address is that of the Ray dashboard, usually port 8265",
            ) from None

    def _reach(self) -> None:
        """A look whether anybody listens: told in seconds, with the reason. Behind a proxy only the request can tell."""
        parts = urlsplit(self.address)
        if not self._is_here and urllib.request.getproxies().get(parts.scheme):
            return
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((str(parts.hostname), port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise BackendError(
                f"target {self.name}: nobody listens at {self.address}: {error.strerror or error}",
                hint="is the cluster up, and this the address of its dashboard? `tlgan target check` asks again",
            ) from None

    def _refused(self, error: urllib.error.HTTPError) -> TlganError:
        with error:
            said = scrub(" ".join(error.read(2000).decode(errors="replace").split()))
        if error.code in (401, 403):
            given = (
                f"the token in {self.auth}" if os.environ.get(self.auth) else f"a request without a token ({self.auth})"
            )
            hint = f"set {self.auth} to the cluster's token"
            return BackendError(f"target {self.name}: {self.address} refuses {given}: {said}", hint=hint)
        if error.code == 404:
            return _Missing(f"target {self.name}: {self.address} has no {urlsplit(error.url or '').path}: {said}")
        if "already exists" in said:
            return Conflict(f"target {self.name}: this submission was sent before")
        return BackendError(f"target {self.name}: {self.address} answers {error.code}: {said[-400:]}")


class _Missing(BackendError):
    pass
