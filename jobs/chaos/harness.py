"""Running a spec in a process of its own, and striking it: the side of `tlgan chaos` that kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.minicluster import MiniCluster, Node
from cluster.store import ArtifactStore
from jobs.chaos.blows import DRIVER, HEAD, NODE, TWIN, WORKER, Blow
from jobs.chaos.watching import Progress
from tlgan.errors import RunFailed

LOOK_EVERY = 0.25
MOST_DRIVERS = 50
Say = Callable[[str], None]
Strike = Callable[["Subject", Blow], str | None]


@dataclass
class Struck:
    """What a blow did. `at_images`: seen then, over all runs; `back_after`: seconds until as many were seen again."""

    kind: str
    at_images: int
    what: str
    back_after: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Course:
    """How a run of the spec went. `images`: seen in all; `seconds` from the first command to the end of the last."""

    images: int
    seconds: float
    drivers: int
    struck: list[Struck]


class Subject:
    """The spec in a store of its own, driven by `tlgan run` in a process of its own, with its cache in `cache`."""

    def __init__(self, spec: Path, store: ArtifactStore, cluster: MiniCluster | None, cache: Path) -> None:
        prefix = cluster.prefix("driver") if cluster else []
        command = [sys.executable, "-m", "jobs.cli", "run", str(spec), "--store", store.url, "--json"]
        self.command = [*prefix, *command]
        self.store, self.cluster, self.cache = store, cluster, cache
        self.log = cache.with_suffix(".log")
        self.driver: subprocess.Popen[bytes] | None = None
        self.drivers = 0
        self.progress = Progress(self.store.store)

    def environment(self) -> dict[str, str]:
        own = self.cluster.environment if self.cluster else dict(os.environ)
        own = {**own, "TLGAN_CACHE": str(self.cache), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return {**own, "RAY_ADDRESS": self.cluster.address} if self.cluster else own

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.command, stdout=output, stderr=output, env=self.environment(), start_new_session=True
            )

    def drive(self) -> None:
        """Gives the command (again)."""
        self.drivers += 1
        if self.drivers > MOST_DRIVERS:
            raise RunFailed(f"the driver was started {MOST_DRIVERS} times and did not reach the end; see {self.log}")
        self.driver = self.start()

    def end_driver(self) -> None:
        """With SIGKILL, it and all that it started."""
        assert self.driver is not None
        kill_group(self.driver)

    def close(self) -> None:
        if self.driver is not None:
            kill_group(self.driver)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(subject: Subject, blows: list[Blow], images: int, say: Say, more: Mapping[str, Strike] | None = None) -> Course:
    """Drives `subject` to its end, and lets each blow fall when its share of `images` is seen.

    `more`: how kinds of blows are dealt that are not among `KINDS`. Raises `RunFailed` when the run fails by itself.
    """
    begun, struck, waiting = time.monotonic(), list[Struck](), list(blows)
    open_blows: list[tuple[Struck, float]] = []
    subject.drive()
    try:
        while True:
            assert subject.driver is not None
            ended = subject.driver.poll()
            seen = subject.progress.look()
            for one, when in [pair for pair in open_blows if seen > pair[0].at_images or ended == 0]:
                one.back_after = round(time.monotonic() - when, 1)
                open_blows.remove((one, when))
            if ended == 0:
                return Course(seen, round(time.monotonic() - begun, 1), subject.drivers, struck)
            if ended is not None:
                raise RunFailed(f"the run failed by itself (exit code {ended}): {last_words(subject.log)}")
            if waiting and not open_blows and seen >= waiting[0].at * images:
                what = (more or {}).get(waiting[0].kind, strike)(subject, waiting[0])
                if what is not None:
                    one = Struck(waiting.pop(0).kind, seen, what)
                    struck.append(one)
                    open_blows.append((one, time.monotonic()))
                    say(f"{one.kind}: {what}, at {seen / 1000:g} kimg")
            time.sleep(LOOK_EVERY)
    finally:
        subject.close()


def strike(subject: Subject, blow: Blow) -> str | None:
    """Does it, and says what was hit; None when there is nothing to hit just now."""
    if blow.kind == DRIVER:
        subject.end_driver()
        subject.drive()
        return f"process {subject.driver.pid if subject.driver else '?'} goes on"
    if blow.kind == TWIN:
        return _twin(subject)
    pids = subject.progress.pids
    if not pids:
        return None
    pid = pids[int(blow.lot * len(pids))]
    if blow.kind == WORKER:
        return _kill_worker(subject, pid)
    assert subject.cluster is not None
    return _kill_node(subject, subject.cluster, pid) if blow.kind == NODE else _kill_head(subject, subject.cluster)


def _kill_worker(subject: Subject, pid: int) -> str | None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    if subject.driver is not None and pid == subject.driver.pid:  # it trains by itself
        subject.end_driver()
        subject.drive()
    return f"process {pid}"


def _kill_node(subject: Subject, cluster: MiniCluster, pid: int) -> str | None:
    node: Node | None = cluster.node_of(pid)
    if node is None:
        return None
    cluster.kill(node)
    return f"{node.name} with {cluster.add_node().name} in its place"


def _kill_head(subject: Subject, cluster: MiniCluster) -> str:
    cluster.restart()
    subject.end_driver()
    subject.drive()
    return "the head and all nodes"


def _twin(subject: Subject) -> str:
    second = subject.start()
    try:
        code = second.wait(timeout=300)
    finally:
        kill_group(second)
    if code == 0:
        return "the second found the run done"
    if code != 4:
        raise RunFailed(f"a second driver of the same run ended with {code}, expected 4: {last_words(subject.log)}")
    return "the second was refused"


def last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-500:] if lines else "it said nothing"


__all__ = ["DRIVER", "HEAD", "NODE", "TWIN", "WORKER", "Course", "Struck", "Subject", "run"]
