"""Events of a run on their way into the store: small segments, written every second or so, never rewritten."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cluster.runs import Runs
from cluster.store.base import Store
from tlgan.errors import BackendError, TlganError
from tlgan.manifest import now_utc

log = logging.getLogger("tlgan.events")
Event = dict[str, Any]
SEGMENT_EVENTS = 500
SEGMENT_SECONDS = 1.0


class EventWriter:
    """Appends events of one process to a run. A store that is away for a while delays events, it does not stop the run.

    `listener` gets each event at once; `flush` and `close` write what is held.
    """

    def __init__(self, store: Store, run_id: str, listener: Callable[[Event], None] | None = None) -> None:
        self.store, self.run_id, self.listener = store, run_id, listener
        self._held: list[Event] = []
        self._writer, self._count = uuid.uuid4().hex[:6], 0
        self._last = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        event = {"time": now_utc(), **event}
        if self.listener:
            self.listener(event)
        with self._lock:
            self._held.append(event)
            due = len(self._held) >= SEGMENT_EVENTS or time.monotonic() - self._last > SEGMENT_SECONDS
        if due:
            self.flush()

    def grid(self, nimg: int, png: bytes) -> None:
        """Stores a sample grid and says so."""
        try:
            self.store.put(f"runs/{self.run_id}/grids/{nimg:012d}.png", png)
        except BackendError as error:
            log.warning("the sample grid at %d images was not stored: %s", nimg, error)
            return
        self({"type": "grid", "nimg": nimg})

    def flush(self) -> None:
        with self._lock:
            if not self._held:
                return
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            key = f"runs/{self.run_id}/events/{stamp}-{self._writer}-{self._count:06d}.jsonl"
            data = "".join(json.dumps(event) + "\n" for event in self._held).encode()
            self._last = time.monotonic()
            try:
                self.store.put(key, data)
            except BackendError as error:
                log.warning("%d events wait for the store: %s", len(self._held), error)
                return
            self._held, self._count = [], self._count + 1

    def close(self) -> None:
        self.flush()


class Follower:
    """Hands new events of a run to `listener` while other processes write them. Use as a context manager."""

    def __init__(self, store: Store, run_id: str, listener: Callable[[Event], None], period: float = 0.5) -> None:
        self._runs, self._run_id, self._listener, self._period = Runs(store), run_id, listener, period
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tlgan-follow")

    def __enter__(self) -> Follower:
        self._seen |= self._runs.segments(self._run_id)  # what an earlier attempt wrote was shown then
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self._poll()

    def _work(self) -> None:
        while not self._stop.wait(self._period):
            self._poll()

    def _poll(self) -> None:
        try:
            for event in self._runs.events(self._run_id, self._seen):
                self._listener(event)
        except TlganError as error:
            log.warning("can't read events: %s", error)
