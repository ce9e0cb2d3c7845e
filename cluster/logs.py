"""Logs of a run on their way into the store and out again, so that they can be read when the cluster is gone.

runs/<run>/logs/<source>/<UTC>-<writer>-<count>.jsonl     segments of at most `SEGMENT_BYTES`, one {"time", "text"} a line
runs/<run>/trials/<n>/logs/...                            the same for a trial of a sweep

A source is `driver` or `rank-<n>`; of a trial, `trial-<n>/rank-0`. What a person must not see is cut out before it is stored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any

from cluster.store.base import Store, scrub
from tlgan.errors import BackendError
from tlgan.manifest import now_utc

log = logging.getLogger("tlgan.logs")
SEGMENT_BYTES = 256 << 10
SEGMENT_SECONDS = 2.0
MAX_BYTES = 64 << 20
MAX_LINE = 8 << 10
ENDED = "the driver has ended"
"""How the last line of a driver's log begins."""
ALL_USED = f"... after {MAX_BYTES >> 20} MB, the rest of this log is on its own machine only"


class LogWriter:
    """Appends the lines of one process. Use as a context manager; a store that is away delays lines, it does not stop the run."""

    def __init__(self, store: Store, run: str, source: str) -> None:
        self.store, self.prefix = store, f"runs/{run}/logs/{source}/"
        self._writer, self._count = uuid.uuid4().hex[:6], 0
        self._held: list[bytes] = []
        self._size = self._total = 0
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tlgan-logs")

    def __enter__(self) -> LogWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.flush()

    def line(self, text: str) -> None:
        """One line of text, without its end. Empty ones are left out."""
        text = scrub(text.rstrip())[:MAX_LINE]
        if not text or self._total > MAX_BYTES:
            return
        with self._lock:
            data = _line(text)
            self._total += len(data)
            self._held.append(data if self._total <= MAX_BYTES else _line(ALL_USED))
            self._size += len(data)
            due = self._size >= SEGMENT_BYTES // 2
        if due:
            self.flush()

    def flush(self) -> None:
        with self._sending:
            with self._lock:
                held, size, self._held, self._size = self._held, self._size, [], 0
            if not held:
                return
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            try:
                self.store.put(f"{self.prefix}{stamp}-{self._writer}-{self._count:06d}.jsonl", b"".join(held))
                self._count += 1
            except BackendError as error:
                with self._lock:  # they wait; what is beyond a few segments is given up
                    keep = self._size + size < 4 * SEGMENT_BYTES
                    self._held, self._size = (
                        (held + self._held, self._size + size) if keep else (self._held, self._size)
                    )
                logging.getLogger("tlgan.logs.away").debug("log lines wait for the store: %s", error)

    def _work(self) -> None:
        while not self._over.wait(SEGMENT_SECONDS):
            self.flush()


def _line(text: str) -> bytes:
    return json.dumps({"time": now_utc(), "text": text}, ensure_ascii=False).encode() + b"\n"


class _Tee:
    """A stream that also hands whole lines to a `LogWriter`."""

    def __init__(self, stream: IO[str], writer: LogWriter) -> None:
        self._stream, self._writer, self._part = stream, writer, ""

    def write(self, text: str) -> int:
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._writer.line(line)
        return self._stream.write(text)

    def end(self) -> None:
        """What stands in a line that was not ended."""
        self._writer.line(self._part)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class captured:  # noqa: N801 - used as a function
    """While it lasts, what this process prints goes to the run's logs as well, and the traceback of what ends it."""

    def __init__(self, store: Store, run: str, source: str, about: str) -> None:
        self.writer, self.about = LogWriter(store, run, source), about

    def __enter__(self) -> None:
        self.writer.__enter__()
        self.writer.line(self.about)
        self.streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Tee(sys.stdout, self.writer), _Tee(sys.stderr, self.writer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Tee):
                stream.end()
        sys.stdout, sys.stderr = self.streams
        if error is not None:
            for line in "".join(traceback.format_exception(error)).splitlines():
                self.writer.line(line)
        with contextlib.suppress(Exception):
            self.writer.__exit__()


@dataclass(frozen=True)
class LogLine:
    """`source`: `driver`, `rank-0`, `trial-003/rank-0`."""

    time: str
    source: str
    text: str


def read_logs(store: Store, run: str, source: str | None = None, seen: set[str] | None = None) -> Iterator[LogLine]:
    """Lines of all processes of a run in the order of time, segment by segment those that `seen` does not hold yet.

    `source`: only those whose source is this or begins with it and a slash. `seen` collects the keys of segments.
    """
    found: list[LogLine] = []
    for key, name in _segments(store, run):
        if (source and name != source and not name.startswith(f"{source}/")) or (seen is not None and key in seen):
            continue
        if seen is not None:
            seen.add(key)
        for line in store.get(key, max_bytes=16 << 20).splitlines():
            entry = json.loads(line)
            found.append(LogLine(entry["time"], name, entry["text"]))
    yield from sorted(found, key=lambda line: line.time)


def sources(store: Store, run: str) -> list[str]:
    """Whose logs there are."""
    return sorted({name for _, name in _segments(store, run)})


def _segments(store: Store, run: str) -> Iterator[tuple[str, str]]:
    """Key and source of every segment."""
    for info in store.list(f"runs/{run}/logs/"):
        yield info.key, info.key.split("/")[3]
    for trial in store.folders(f"runs/{run}/trials/"):
        for info in store.list(f"runs/{run}/trials/{trial}/logs/"):
            yield info.key, f"trial-{trial}/{info.key.split('/')[5]}"
