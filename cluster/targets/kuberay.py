"""Target `kuberay`: a RayJob of the KubeRay operator (ray.io/v1), a cluster of its own for each run, gone when the run has ended.

The manifest is made here and applied by `kubectl`; where there is none, `tlgan render` prints it. Keys reach the pods from a
Kubernetes Secret that the target names; they are never in the manifest.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
from importlib import metadata
from typing import Any, Literal

import yaml
from pydantic import Field

from cluster.sections import ResourcesSpec
from cluster.store.base import scrub
from cluster.targets.base import Handle, Progress, Target, Ticket, refuse_local_store
from tlgan.errors import BackendError
from tlgan.recipe import Section

TIMEOUT_SECONDS = 60.0
KEPT_SECONDS = 300  # pods stay so long after the end, for a look
LABELS = {"app.kubernetes.io/name": "tlgan", "app.kubernetes.io/managed-by": "tlgan"}


class _WrittenOut(yaml.SafeDumper):
    """Equal parts are written again, not as references to the first."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class PodSpec(Section):
    """What one pod requests; of workers the CPUs and GPUs come from the spec's `resources`."""

    cpus: int = Field(2, ge=1, le=1024)
    memory: str = Field("8Gi", pattern=r"^\d+(\.\d+)?([KMGT]i?)?$")


class KubeTarget(Target):
    kind: Literal["kuberay"] = "kuberay"
    image: str = Field(..., pattern=r"^\S+$", description="with tlgan, its packages and the same Ray as here")
    namespace: str = Field("default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    context: str | None = Field(None, description="of kubectl; default: its current one")
    env_from: list[str] = Field(
        [], description="names of Kubernetes Secrets whose entries become variables: the store's keys"
    )
    service_account: str | None = None
    head: PodSpec = PodSpec()
    worker_memory: str = Field("8Gi", pattern=r"^\d+(\.\d+)?([KMGT]i?)?$")
    gpu: str = Field("nvidia.com/gpu", description="the cluster's name of a GPU")
    node_selector: dict[str, str] = Field({}, description="of the workers' pods")
    tolerations: list[dict[str, str]] = Field([], description="of the workers' pods")

    def where(self) -> str:
        return f"the Kubernetes cluster of {self.name}"

    def refuse(self, ticket: Ticket) -> None:
        refuse_local_store(ticket, self)

    def request(self, ticket: Ticket) -> dict[str, Any]:
        driver = ticket.driver
        own = driver or ResourcesSpec()
        head_cpus = max(self.head.cpus, own.cpus_per_worker if driver else 0)
        spec = {
            "entrypoint": shlex.join(["python", *ticket.arguments]),
            "entrypointNumCpus": own.cpus_per_worker if driver else 0,
            "entrypointNumGpus": own.gpus_per_worker if driver else 0,
            "submissionMode": "K8sJobMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "rayClusterSpec": {
                "rayVersion": metadata.version("ray"),
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": str(head_cpus if driver else 0), "dashboard-host": "0.0.0.0"},
                    "template": self._pod(
                        ticket, "head", head_cpus, self.head.memory, math.ceil(own.gpus_per_worker) if driver else 0
                    ),
                },
                "workerGroupSpecs": self._workers(ticket),
            },
        }
        metadata_of = {
            "name": f"tlgan-{ticket.submission}",
            "namespace": self.namespace,
            "labels": LABELS,
            "annotations": {"tlgan/run": ticket.run, "tlgan/kind": ticket.kind},
        }
        return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata_of, "spec": spec}

    def _workers(self, ticket: Ticket) -> list[dict[str, Any]]:
        """One pod a worker, as large as the largest; workers that share a GPU share a pod."""
        if not ticket.demands:
            return []
        cpus = max(demand.cpus_per_worker for demand in ticket.demands)
        gpus = max(demand.gpus_per_worker for demand in ticket.demands)
        shared = math.floor(1 / gpus) if 0 < gpus < 1 else 1
        count = math.ceil(max(demand.workers for demand in ticket.demands) / shared)
        pod = self._pod(ticket, "worker", cpus * shared, self.worker_memory, math.ceil(gpus))
        sizes = {"replicas": count, "minReplicas": count, "maxReplicas": count}
        return [{"groupName": "workers", **sizes, "rayStartParams": {}, "template": pod}]

    def _pod(self, ticket: Ticket, role: str, cpus: int, memory: str, gpus: int) -> dict[str, Any]:
        amount: dict[str, Any] = {"cpu": str(cpus), "memory": memory, **({self.gpu: str(gpus)} if gpus else {})}
        variables = {**ticket.variables(), **self.env}
        container: dict[str, Any] = {
            "name": f"ray-{role}",
            "image": self.image,
            "resources": {"requests": amount, "limits": amount},
            "env": [{"name": name, "value": value} for name, value in sorted(variables.items())],
            "envFrom": [{"secretRef": {"name": name}} for name in self.env_from],
        }
        pod: dict[str, Any] = {"containers": [container]}
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        if self.node_selector and role == "worker":
            pod["nodeSelector"] = self.node_selector
        if self.tolerations and role == "worker":
            pod["tolerations"] = self.tolerations
        return {"metadata": {"labels": LABELS}, "spec": pod}

    def rendered(self, ticket: Ticket) -> str:
        return yaml.dump(self.request(ticket), Dumper=_WrittenOut, sort_keys=False)

    def handle(self, ticket: Ticket) -> Handle:
        return {"name": f"tlgan-{ticket.submission}", "namespace": self.namespace}

    def start(self, ticket: Ticket) -> Handle:
        self._kubectl("apply", "-f", "-", text=json.dumps(self.request(ticket)))
        return self.handle(ticket)

    def progress(self, handle: Handle) -> Progress:
        text = self._kubectl("get", "rayjobs.ray.io", handle["name"], "--ignore-not-found", "-o", "json")
        if not text.strip():
            waits = handle.get("rendered", False)
            return Progress("pending" if waits else "ended", f"there is no RayJob {handle['name']}")
        status = json.loads(text).get("status", {})
        said = f"{status.get('jobDeploymentStatus', 'New')} {status.get('jobStatus', '')} {status.get('message', '')}"
        if (
            status.get("jobStatus") in ("SUCCEEDED", "FAILED", "STOPPED")
            or status.get("jobDeploymentStatus") == "Failed"
        ):
            return Progress("ended", " ".join(said.split()))
        running = status.get("jobStatus") == "RUNNING"
        return Progress("running" if running else "pending", " ".join(said.split()))

    def end(self, handle: Handle) -> None:
        self._kubectl("delete", "rayjobs.ray.io", handle["name"], "--ignore-not-found", "--wait=false")

    def findings(self) -> list[tuple[str, str]]:
        client = json.loads(self._kubectl("version", "--client", "-o", "json"))["clientVersion"]["gitVersion"]
        operator = self._kubectl("get", "crd", "rayjobs.ray.io", "--ignore-not-found", "-o", "name").strip()
        if not operator:
            hint = "install the KubeRay operator in the cluster"
            raise BackendError(f"target {self.name}: the cluster knows no RayJob", hint=hint)
        allowed = self._kubectl("auth", "can-i", "create", "rayjobs.ray.io", check=False).strip()
        if allowed != "yes":
            raise BackendError(f"target {self.name}: you may not create RayJobs in namespace {self.namespace}")
        return [("kubectl", client), ("operator", operator), ("namespace", f"{self.namespace}: RayJobs may be created")]

    def _kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """What kubectl prints. Raises `BackendError` with its own words."""
        program = shutil.which("kubectl")
        if program is None:
            hint = "`tlgan render SPEC --on TARGET` prints what is to be applied, for another machine"
            raise BackendError(f"target {self.name}: kubectl is not installed here", hint=hint)
        place = ["--context", self.context] if self.context else []
        command = [program, *place, "--namespace", self.namespace, *arguments]
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise BackendError(f"target {self.name}: kubectl gave no answer in {TIMEOUT_SECONDS:g} s") from None
        if done.returncode and check:
            said = scrub(" ".join(done.stderr.split()))[-500:]
            raise BackendError(
                f"target {self.name}: kubectl {arguments[0]}: {said}", hint="`tlgan target check` tells more"
            )
        return done.stdout
