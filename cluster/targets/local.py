"""Target `local`: a process group of its own on this machine, which lives on when the shell that started it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from cluster.code import root
from cluster.ray_session import this_machine
from cluster.room import Node
from cluster.runs import birth_of
from cluster.targets.base import Handle, Progress, Target, Ticket
from tlgan.data import cache_root
from tlgan.errors import BackendError

GRACE_SECONDS = 5.0
_STARTED: list[subprocess.Popen[bytes]] = []


class LocalTarget(Target):
    kind: Literal["local"] = "local"

    def nodes(self) -> list[Node] | None:
        return [this_machine()]

    @property
    def can_probe(self) -> bool:
        return True

    def where(self) -> str:
        return "this machine"

    def request(self, ticket: Ticket) -> dict[str, Any]:
        return {
            "command": [sys.executable, *ticket.arguments],
            "cwd": ticket.folder,
            "env": {**ticket.variables(), **self.env, "PYTHONPATH": _search_path()},
            "log": str(cache_root() / "drivers" / f"{ticket.run}-{ticket.submission}.log"),
        }

    def start(self, ticket: Ticket) -> Handle:
        asked = self.request(ticket)
        Path(asked["log"]).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(asked["log"]).open("ab") as log:
                process = subprocess.Popen(
                    asked["command"],
                    cwd=asked["cwd"],
                    env={**os.environ, **asked["env"]},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise BackendError(f"can't start a process in {asked['cwd']}: {error.strerror}") from None
        _STARTED[:] = [*(one for one in _STARTED if one.poll() is None), process]
        return {"host": socket.gethostname(), "pid": process.pid, "process": birth_of(process.pid), "log": asked["log"]}

    def progress(self, handle: Handle) -> Progress:
        if handle["host"] != socket.gethostname():
            return Progress("unknown", f"it was started on {handle['host']}")
        if _lives(handle):
            return Progress("running", f"process {handle['pid']}")
        return Progress("ended", f"process {handle['pid']} is gone")

    def end(self, handle: Handle) -> None:
        if handle["host"] != socket.gethostname():
            raise BackendError(f"the run was started on {handle['host']}", hint="stop it there, or without --now")
        if birth_of(handle["pid"]) not in ("", "gone", handle["process"]):
            return  # the number is another process's by now
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handle["pid"], number)
            deadline = time.monotonic() + GRACE_SECONDS
            while _group_lives(handle["pid"]) and time.monotonic() < deadline:
                time.sleep(0.05)

    def findings(self) -> list[tuple[str, str]]:
        node = this_machine()
        return [("machine", f"{socket.gethostname()}: {node['CPU']:g} CPUs, {node['GPU']:g} GPUs")]


def _search_path() -> str:
    """The packages that this process runs from, before everything else."""
    return os.pathsep.join(filter(None, [str(root()), os.environ.get("PYTHONPATH")]))


def _lives(handle: Handle) -> bool:
    for one in _STARTED:
        one.poll()
    return bool(handle["process"]) and birth_of(handle["pid"]) == handle["process"]


def _group_lives(group: int) -> bool:
    for one in _STARTED:
        one.poll()
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
