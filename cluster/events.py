"""Events of a run on their way into the store: small segments, written every second or so, never rewritten."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import uuid
from collections import deque
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
MOST_EVENTS, MOST_GRIDS = 50_000, 20
"""What is held at most while the store is away."""


class EventWriter:
    """Appends events of one process to a run. A thread brings them to the store: one that is away delays them, and neither
    stops the run nor holds it up. Of what waits too long, the oldest is given up.

    `listener` gets each event at once; `flush` and `close` write what is held.
    """

    def __init__(self, store: Store, run_id: str, listener: Callable[[Event], None] | None = None) -> None:
        self.store, self.run_id, self.listener = store, run_id, listener
        self._held: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._grids: deque[tuple[int, bytes]] = deque(maxlen=MOST_GRIDS)
        self._writer, self._count = uuid.uuid4().hex[:6], 0
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        event = {"time": now_utc(), **event}
        if self.listener:
            self.listener(event)
        with self._lock:
            self._held.append(event)
            self._start()

    def grid(self, nimg: int, png: bytes) -> None:
        """Stores a sample grid, and says so once it is there."""
        with self._lock:
            self._grids.append((nimg, png))
            self._start()

    def _start(self) -> None:
        if self._thread is None and not self._over.is_set():
            self._thread = threading.Thread(target=self._work, daemon=True, name="tlgan-events")
            self._thread.start()

    def _work(self) -> None:
        while not self._over.wait(SEGMENT_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Tries to write what is held."""
        with self._writing:
            try:
                self._put_grids()
                self._put_segments()
            except BackendError as error:
                log.warning("%d events wait for the store: %s", len(self._held), error)

    def _put_grids(self) -> None:
        while self._grids:
            nimg, png = self._grids[0]
            self.store.put(f"runs/{self.run_id}/grids/{nimg:012d}.png", png)
            with self._lock:
                if self._grids and self._grids[0][0] == nimg:
                    self._grids.popleft()
            self({"type": "grid", "nimg": nimg})

    def _put_segments(self) -> None:
        while self._held:
            with self._lock:
                taken = list(itertools.islice(self._held, SEGMENT_EVENTS))
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            key = f"runs/{self.run_id}/events/{stamp}-{self._writer}-{self._count:06d}.jsonl"
            self.store.put(key, "".join(json.dumps(event) + "\n" for event in taken).encode())
            self._count += 1
            with self._lock:
                while taken and self._held:
                    if self._held[0] is not taken.pop(0):
                        continue  # given up meanwhile
                    self._held.popleft()

    def close(self) -> None:
        """Writes what is held; it may be used again, and closed again."""
        self._over.set()
        if self._thread:
            self._thread.join()
            self._thread = None
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
