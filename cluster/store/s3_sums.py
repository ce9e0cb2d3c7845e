"""The sums of a file and of its parts, in one reading.

sha256 goes through a file from front to back and keeps one core busy. Meanwhile the other cores take the md5 of its parts,
which the server is asked for when they are sent. md5 is slower than sha256, so where they don't keep up a part gets a CRC
instead: that tells whether it is still the same when it is sent, and its md5 is taken then.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from concurrent.futures import Executor, Future, wait
from io import FileIO
from pathlib import Path

from cluster.store.s3_gate import cores
from cluster.store.s3_receipt import md5_of
from tlgan.errors import IntegrityError

CHANGED = "the file changed after it was hashed"
FILES = 4
AHEAD = 3

Sum = bytes | int
"""Of one part: its md5, or its CRC-32."""


class Summing:
    """Sums files, in any number of threads. Memory: at most `FILES * (AHEAD + 1)` parts, fewer on few cores."""

    def __init__(self, pool: Executor) -> None:
        self.pool, self._turn = pool, threading.Semaphore(min(FILES, cores()))

    def hash_parts(self, path: Path, part_size: int) -> tuple[str, list[Sum]]:
        """sha256 of a file, in hexadecimal, and the sums of its parts of `part_size` bytes."""
        hasher = hashlib.sha256()
        jobs: list[Future[Sum]] = []
        ring = [memoryview(bytearray(part_size)) for _ in range(min(AHEAD, cores()) + 1)]
        try:
            with self._turn, path.open("rb", buffering=0) as file:
                while size := _fill(file, part := ring[len(jobs) % len(ring)]):
                    kept_up = sum(not job.done() for job in jobs[-len(ring) :]) < max(1, cores() - 1)
                    jobs.append(self.pool.submit(md5_of if kept_up else zlib.crc32, part[:size]))
                    hasher.update(part[:size])
                    if len(jobs) >= len(ring):
                        jobs[-len(ring)].result()  # the next reading goes where its part is
                return hasher.hexdigest(), [job.result() for job in jobs]
        finally:
            wait(jobs)


def md5_of_same(data: bytes, known: Sum) -> bytes:
    """The md5 of a part that is sent. Raises `IntegrityError` when it is not what was summed."""
    if isinstance(known, bytes):
        return known  # the server will tell
    if zlib.crc32(data) != known:
        raise IntegrityError(CHANGED)
    return md5_of(data)


def _fill(file: FileIO, part: memoryview) -> int:
    """Reads until `part` is full or the file ends: a raw file may give less at a time."""
    done = 0
    while done < len(part) and (size := file.readinto(part[done:])):
        done += size
    return done
