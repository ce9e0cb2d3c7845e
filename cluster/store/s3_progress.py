"""How far each range of a download has come: told to who hashes the file from its start, and remembered beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.store.base import CHUNK
from cluster.store.s3_journal import write_whole

RANGE = 16 << 20
RANGES = 16
SAVED_EVERY = 0.5


class Progress:
    """The ranges of `part`, a file of `size` bytes. Goes on where an earlier process left its journal."""

    def __init__(self, part: Path, size: int) -> None:
        self.part, self.size = part, size
        self.stopped = False
        self._journal = part.with_name(part.name + ".json")
        self._step = max(RANGE, -(-size // RANGES))
        self._moved = threading.Condition()
        self._at = self._load()
        self._saved = time.monotonic()

    def missing(self) -> Iterator[int]:
        """Numbers of the ranges that are not whole yet."""
        return (number for number in range(len(self._at)) if self._at[number] < self.end(number))

    def at(self, number: int) -> int:
        """The next byte that this range needs."""
        return self._at[number]

    def end(self, number: int) -> int:
        return min(self.size, (number + 1) * self._step)

    def reached(self, number: int, at: int) -> None:
        with self._moved:
            self._at[number] = at
            self._moved.notify_all()
            if time.monotonic() - self._saved > SAVED_EVERY:
                self.save()

    def stop(self) -> None:
        """Something failed, or all is here: nobody waits for more."""
        with self._moved:
            self.stopped = True
            self._moved.notify_all()

    def sha256(self, descriptor: int) -> str:
        """Hashes the file behind the front of what has come, until all has, or somebody stops it."""
        hasher, at = hashlib.sha256(), 0
        while at < self.size:
            number = at // self._step
            with self._moved:
                while self._at[number] <= at and not self.stopped:
                    self._moved.wait()
                front = self._at[number]
            if front <= at:
                break
            while at < front:
                data = os.pread(descriptor, min(CHUNK, front - at), at)
                hasher.update(data)
                at += len(data)
        return hasher.hexdigest()

    def save(self) -> None:
        with contextlib.suppress(OSError):
            self._saved = time.monotonic()
            write_whole(self._journal, {"size": self.size, "at": self._at})

    def forget(self) -> None:
        self._journal.unlink(missing_ok=True)

    def _load(self) -> list[int]:
        starts = list(range(0, self.size, self._step))
        try:
            known = json.loads(self._journal.read_bytes())
            at = [int(position) for position in known["at"]]
            whole = self.part.stat().st_size == known["size"] == self.size
        except (OSError, ValueError, TypeError, KeyError):
            return starts
        bounds = [*starts, self.size]
        inside = len(at) == len(starts) and all(bounds[i] <= at[i] <= bounds[i + 1] for i in range(len(at)))
        return at if whole and inside else starts
