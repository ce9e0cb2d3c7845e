"""What every job needs around it: the store, the runs, Ray when it is needed, somebody who listens, a way to stop."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.job import Job
from cluster.patience import patiently
from cluster.ray_session import RaySession
from cluster.runs import RunRecord, Runs
from cluster.sinks import About, Fan, open_sinks
from cluster.stopping import stop_key, stop_signal
from cluster.store import ArtifactStore
from tlgan.data import cache_root
from tlgan.errors import RunStopped

Event = dict[str, Any]
SINKS_FOLDER = Path(".tlgan") / "sinks"


def _silent(run_id: str, event: Event) -> None:
    pass


@dataclass
class Session:
    """`listener(run id, event)` hears everything; `fresh` runs again what was done before; `interrupted` asks runs to stop.

    `only_plans`: nothing is to be run, not even what a plan would need.
    """

    artifacts: ArtifactStore
    listener: Callable[[str, Event], None] = _silent
    fresh: bool = False
    interrupted: threading.Event = field(default_factory=threading.Event)
    why_stopped: str = "stopped by a person"
    ray_address: str | None = None
    only_plans: bool = False

    def __post_init__(self) -> None:
        self.runs = Runs(self.artifacts.store)
        key = hashlib.sha256(self.artifacts.url.encode()).hexdigest()[:12]
        self.work = cache_root() / "work" / key
        self.open: set[str] = set()
        self._fans: dict[str, Fan] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.ray = RaySession(self.ray_address, self.work / "ray.log")

    def workdir(self, run_id: str) -> Path:
        """This machine's scratch of a run: checkpoints until they are published."""
        return self.work / run_id

    def hear(self, run_id: str, event: Event) -> None:
        """Of an event of a run: the listener, and the sinks of that run."""
        self.listener(run_id, event)
        if fan := self._fans.get(run_id):
            fan(event)

    @contextmanager
    def told_elsewhere(self, job: Job, run: RunRecord) -> Iterator[None]:
        """While it lasts, the sinks that the job names hear of the run."""
        about = About(run.id, run.name, run.kind, run.recipe or {}, SINKS_FOLDER, self.artifacts.store)
        self._fans[run.id] = open_sinks(getattr(job, "sinks", []), about)
        try:
            yield
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt | RunStopped) else "failed"
            self._fans[run.id]({"type": "run", "state": state})
            raise
        finally:
            self._fans.pop(run.id).close()

    @contextmanager
    def passing_on_interrupts(self, run: RunRecord) -> Iterator[None]:
        """While it lasts, an interrupt is written into the store, where workers on other machines look for it."""
        over, key = threading.Event(), stop_key(run.id, run.attempt)

        def watch() -> None:
            while not over.is_set():
                if self.interrupted.wait(0.2):
                    patiently(lambda: self.artifacts.store.put(key, b"{}"), f"stopping run {run.id}")
                    return

        thread = threading.Thread(target=watch, daemon=True, name="tlgan-interrupts")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def should_stop(self, run: RunRecord) -> Callable[[], bool]:
        """A function that says whether the run was interrupted here, or stopped by somebody through the store."""
        asked = stop_signal(self.artifacts.store, run.id, run.attempt)
        return lambda: self.interrupted.is_set() or asked()

    @contextmanager
    def alone(self, run_id: str) -> Iterator[None]:
        """Stages side by side may need the same run: one does it, the others wait."""
        with self._guard:
            lock = self._locks.setdefault(run_id, threading.Lock())
        with lock:
            self.open.add(run_id)
            try:
                yield
            finally:
                self.open.discard(run_id)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.close()


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
