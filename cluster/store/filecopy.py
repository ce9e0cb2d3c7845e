"""Copying files while hashing what arrives: by the kernel where it can (a third of the processor time), else by hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import IO

STEP = 4 << 20
BUFFER = 256 << 10  # stays in the processor's cache, and is not allocated anew each time


def copy_hashed(source: IO[bytes], target: IO[bytes], limit: int | None = None) -> str:
    """Copies to the end of `source`; the sha256 of what `target` holds then. Both are unbuffered files, at their start.

    Stops early once `target` is longer than `limit` bytes.
    """
    hasher, buffer, at = hashlib.sha256(), memoryview(bytearray(BUFFER)), 0
    for end in _copied(source, target):
        while at < end:
            count = _read_at(target.fileno(), buffer[: min(BUFFER, end - at)], at)
            hasher.update(buffer[:count])
            at += count
        if limit is not None and at > limit:
            break
    return hasher.hexdigest()


def _copied(source: IO[bytes], target: IO[bytes]) -> Iterator[int]:
    """Copies step by step; yields how many bytes have been."""
    done = 0
    try:
        while count := os.copy_file_range(source.fileno(), target.fileno(), STEP):
            done += count
            yield done
    except (AttributeError, OSError):  # not on this system, or not between these file systems
        source.seek(done)
        target.seek(done)
    while data := source.read(BUFFER):  # also for file systems that answer 0 at once
        written = 0
        while written < len(data):
            written += target.write(data[written:])
        done += len(data)
        yield done


def _read_at(descriptor: int, buffer: memoryview, at: int) -> int:
    if hasattr(os, "preadv"):
        count = os.preadv(descriptor, [buffer], at)
    else:
        data = os.pread(descriptor, len(buffer), at)
        count, buffer[: len(data)] = len(data), data
    if not count:
        raise OSError(f"a file that is being written lost its bytes from {at} on")
    return count
