"""A Ray cluster of several nodes on this machine, whose nodes can be killed: for `tlgan chaos` and for tests.

A node is `ray start --block` with all its descendants, so that killing it is what a power cut is to a machine: nobody says
goodbye. Nodes talk over one address, with a token of their own; each has a cache directory of its own, as machines do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tlgan.errors import BackendError

HOST = "127.0.0.1"
TRIES = 3
STARTED = "Ray runtime started"
START_SECONDS = 120.0
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
PORTS = [
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",
    "--dashboard-agent-grpc-port=0",
]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


@dataclass
class Node:
    """`root` is the first of its processes."""

    name: str
    root: subprocess.Popen[bytes]
    log: Path

    @property
    def pids(self) -> set[int]:
        return {self.root.pid, *descendants(self.root.pid)}

    def kill(self) -> None:
        """All its processes at once, with SIGKILL."""
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: none starts another one meanwhile
            for pid in self.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.root.wait()


class MiniCluster:
    """A head without processors and `nodes` nodes of `cpus` each. Use as a context manager.

    `prefix(name)`: a command before that of each node, as `ip netns exec` is; `host(name)`: the address it has then.
    """

    def __init__(self, folder: Path, nodes: int, cpus: int, environment: dict[str, str] | None = None) -> None:
        self.folder, self.count, self.cpus = folder, nodes, cpus
        token = secrets.token_hex(16)
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, **QUIET, **(environment or {})}
        self.environment = {**{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}, **own}
        self.nodes: list[Node] = []
        self.address = ""
        self._sockets = ""
        self._made = 0

    def prefix(self, name: str) -> list[str]:
        return []

    def host(self, name: str) -> str:
        return HOST

    def start(self) -> None:
        """The head, then the nodes. Raises `BackendError`."""
        port = _free_port()
        self.address = f"{self.host('head')}:{port}"
        self._sockets = tempfile.mkdtemp(prefix="tlgan-")  # their paths must be short, as that of `folder` may not be
        head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={self._sockets}"]
        self._started("head", head)
        for _ in range(self.count):
            self.add_node()

    def add_node(self) -> Node:
        """Returns when it has joined."""
        return self._started(f"node{self._made}", [f"--address={self.address}", f"--num-cpus={self.cpus}"])

    def _started(self, name: str, arguments: list[str]) -> Node:
        """Ray gives a node half a minute to start, which a busy machine may not keep: then another one is tried."""
        for _ in range(TRIES - 1):
            node = self._add(name, arguments)
            try:
                self._wait_for(node)
                return node
            except BackendError:
                self.kill(node)
        node = self._add(name, arguments)
        self._wait_for(node)
        return node

    def _add(self, name: str, arguments: list[str]) -> Node:
        self._made += 1
        log = self.folder / f"{name}-{self._made}.log"
        command = [*self.prefix(name), *RAY, "start", "--block", *arguments, *PORTS]
        command += [f"--node-ip-address={self.host(name)}", f"--object-store-memory={128 << 20}"]
        command += [f'--resources={{"{name}": 1}}']  # so that a node is known by its name
        cache = {"TLGAN_CACHE": str(self.folder / f"cache-{name}")}
        with log.open("wb") as output:
            root = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, **cache},
                start_new_session=True,
            )
        self.nodes.append(Node(name, root, log))
        return self.nodes[-1]

    def _wait_for(self, node: Node) -> None:
        end = time.monotonic() + START_SECONDS
        said = ""
        while time.monotonic() < end and node.root.poll() is None:
            said = node.log.read_text(errors="replace")
            if STARTED in said:
                return
            time.sleep(0.1)
        raise BackendError(f"Ray could not be started on this machine: {said.strip()[-500:] or 'it says nothing'}")

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def node_of(self, pid: int) -> Node | None:
        """The node on which a process runs."""
        return next((node for node in self.nodes if pid in node.pids), None)

    def kill(self, node: Node) -> None:
        node.kill()
        self.nodes.remove(node)

    def restart(self) -> None:
        """All nodes are gone with the head; another cluster takes its place."""
        self.close()
        self.start()

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        self.nodes = []
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def __enter__(self) -> MiniCluster:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and those that these started."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
