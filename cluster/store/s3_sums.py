"""The sums of a file and of its parts, in one reading.

sha256 goes through a file from front to back and keeps one core busy. Another reads ahead for it meanwhile and takes the CRC
of each part, by which the part is known again when it is sent.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from concurrent.futures import Executor, wait
from io import FileIO
from pathlib import Path

from cluster.store.s3_gate import cores

FILES = 4
BLOCK = 4 << 20


class Summing:
    """Sums files, in any number of threads. Memory: two blocks a file, of at most `FILES` files, fewer on few cores."""

    def __init__(self, pool: Executor) -> None:
        self.pool, self._turn = pool, threading.Semaphore(min(FILES, cores()))

    def hash_parts(self, path: Path, part_size: int) -> tuple[str, list[int]]:
        """sha256 of a file, in hexadecimal, and the CRC-32 of each of its parts of `part_size` bytes."""
        hasher = hashlib.sha256()
        with self._turn, path.open("rb", buffering=0) as file:
            reader = _Reader(file, part_size)
            now, free = (memoryview(bytearray(min(BLOCK, part_size))) for _ in range(2))
            ahead = self.pool.submit(reader.read, now)
            try:
                while size := ahead.result():
                    ahead = self.pool.submit(reader.read, free)
                    hasher.update(now[:size])
                    now, free = free, now
            finally:
                wait([ahead])
        return hasher.hexdigest(), reader.crcs


class _Reader:
    """Reads a file block by block, none of which is in two parts."""

    def __init__(self, file: FileIO, part_size: int) -> None:
        self.file, self.part_size = file, part_size
        self.crcs: list[int] = []
        self._left = 0

    def read(self, block: memoryview) -> int:
        """How many bytes of the file are in `block` now; 0 at its end."""
        size = _fill(self.file, block[: self._left or self.part_size])
        if size and not self._left:
            self.crcs.append(0)
            self._left = self.part_size
        if size:
            self.crcs[-1] = zlib.crc32(block[:size], self.crcs[-1])
            self._left -= size
        return size


def _fill(file: FileIO, part: memoryview) -> int:
    """Reads until `part` is full or the file ends: a raw file may give less at a time."""
    done = 0
    while done < len(part) and (size := file.readinto(part[done:])):
        done += size
    return done
