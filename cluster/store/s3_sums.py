"""The sums of a file and of its parts, in one reading.

sha256 goes through a file from front to back and keeps one core busy. Meanwhile the other cores take the md5 of its parts,
which the server is asked for when they are sent: nothing is summed again then.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Executor, Future, wait
from io import FileIO
from pathlib import Path

from cluster.store.s3_gate import cores
from cluster.store.s3_receipt import md5_of

FILES = 4
AHEAD = 3


class Summing:
    """Sums files, in any number of threads. Memory: at most `FILES * (AHEAD + 1)` parts, fewer on few cores."""

    def __init__(self, pool: Executor) -> None:
        self.pool, self._turn = pool, threading.Semaphore(min(FILES, cores()))

    def hash_parts(self, path: Path, part_size: int) -> tuple[str, list[bytes]]:
        """sha256 of a file, in hexadecimal, and the md5 of its parts of `part_size` bytes."""
        hasher = hashlib.sha256()
        jobs: list[Future[bytes]] = []
        ring = [memoryview(bytearray(part_size)) for _ in range(min(AHEAD, cores()) + 1)]
        try:
            with self._turn, path.open("rb", buffering=0) as file:
                while size := _fill(file, part := ring[len(jobs) % len(ring)]):
                    jobs.append(self.pool.submit(md5_of, part[:size]))
                    hasher.update(part[:size])
                    if len(jobs) >= len(ring):
                        jobs[-len(ring)].result()  # the next reading goes where its part is
                return hasher.hexdigest(), [job.result() for job in jobs]
        finally:
            wait(jobs)


def _fill(file: FileIO, part: memoryview) -> int:
    """Reads until `part` is full or the file ends: a raw file may give less at a time."""
    done = 0
    while done < len(part) and (size := file.readinto(part[done:])):
        done += size
    return done
