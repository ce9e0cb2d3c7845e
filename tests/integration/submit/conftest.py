"""What the tests of submitting share: a spec, an empty store, a target that starts nothing, a Ray head with a token."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field
from servers import KEY, SECRET, asked_once, free_port, moto_server  # noqa: F401

from cluster.room import Node
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from cluster.targets.base import Handle, Progress, Target, Ticket
from jobs.cli import main

ROOT = Path(__file__).parents[3]
TOKEN = "the-token-of-the-test-cluster-0123456789"
SPEC = {
    "version": 1,
    "kind": "pretrain",
    "name": "tiny",
    "data": {"source": "digits"},
    "model": {"width": 8, "latent_dim": 16},
    "train": {"kimg": 0.5, "batch_size": 32},
    "output": {"artifact": "tiny-gan"},
}
Run = Callable[..., tuple[int, str, str]]


class Stub(Target):
    """Remembers what it was to start."""

    kind: Literal["local"] = "local"
    cpus: float = Field(2.0, exclude=True)
    state: str = Field("running", exclude=True)
    tickets: list[Ticket] = Field([], exclude=True)

    def nodes(self) -> list[Node] | None:
        return [{"CPU": self.cpus}]

    def handle(self, ticket: Ticket) -> Handle:
        """As of a local process that is gone."""
        return {"host": socket.gethostname(), "pid": 2**22 + 1, "process": "none", "log": "none"}

    def start(self, ticket: Ticket) -> Handle:
        self.tickets.append(ticket)
        return self.handle(ticket)

    def progress(self, handle: Handle) -> Progress:
        return Progress(self.state, "as the test says")  # type: ignore[arg-type]


@pytest.fixture
def stub() -> Stub:
    return Stub(name="stub", tickets=[])


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(open_store(str(tmp_path / "store")))


@pytest.fixture
def job() -> Callable[..., Any]:
    """The tiny spec; keyword arguments are dotted paths with __ for the dots."""
    return lambda **changes: parse_job(SPEC, [f"{k.replace('__', '.')}={v}" for k, v in changes.items()])


@pytest.fixture
def spec(workdir: Path) -> Path:
    """The tiny spec as a file in the current, empty folder."""
    (workdir / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    return workdir / "tiny.yaml"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`code, out, err = run("ls", "--json")`"""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@dataclass(frozen=True)
class Head:
    """A Ray cluster of one node: the address of its dashboard, and how to end it."""

    address: str
    process: subprocess.Popen[bytes]
    folder: Path
    token: str = TOKEN

    def settings(self) -> dict[str, Any]:
        """As a target in tlgan.yaml. The cluster has this tlgan; keys of the store are in its nodes' environment."""
        return {"kind": "ray", "address": self.address, "python": sys.executable, "env": {"PYTHONPATH": str(ROOT)}}

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Callable[[], Head]]:
    """Gives a head that lives: the one there is, or a new one when a test has ended it."""
    started: list[Head] = []

    def living() -> Head:
        if not started or started[-1].process.poll() is not None:
            started.append(_start_head())
            _wait_for_nodes(started[-1])
        return started[-1]

    try:
        yield living
    finally:
        for head in started:
            head.end()
            shutil.rmtree(head.folder, ignore_errors=True)


def _start_head() -> Head:
    port = free_port()
    base = Path(tempfile.mkdtemp(prefix="tlgan-head-", dir="/tmp"))  # paths of Ray's sockets must be short
    options = {
        "port": 0, "dashboard-port": port, "dashboard-host": "127.0.0.1", "dashboard-agent-listen-port": 0,
        "dashboard-agent-grpc-port": 0, "node-ip-address": "127.0.0.1", "ray-client-server-port": free_port(),
        "num-cpus": 2, "object-store-memory": 100 << 20, "temp-dir": base, "include-dashboard": "true",
    }  # fmt: skip
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "TLGAN_CACHE": str(base / "cache")}
    with (base / "head.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **keys, **own}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return Head(f"http://127.0.0.1:{port}", process, base)


def _wait_for_nodes(head: Head) -> None:
    asked = urllib.request.Request(f"{head.address}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and head.process.poll() is None:
        try:
            with opener.open(asked, timeout=5) as answer:
                if b"ALIVE" in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the Ray head did not come up:\n{(head.folder / 'head.log').read_text()}")
