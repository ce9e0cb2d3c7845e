"""Keeping the node's cache under its cap: what was not used for longest goes first, what is in use stays.

The time of a file's or folder's last use stands in the file system: `touch` writes it, and a process that was handed a
folder writes it again every few minutes for as long as it lives. So whatever a living process works with is never older
than `IDLE` seconds, on this machine or on another one that shares the cache; a program that only got the path from
`tlgan pull` has that long until its next use, or pulls into a folder of its own.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from cluster.store.locks import file_lock
from tlgan.errors import SpecError

log = logging.getLogger("tlgan.store")

CAP_VARIABLE = "TLGAN_CACHE_BYTES"
DEFAULT_CAP = "20%"
IDLE = 3600.0  # seconds since the last use after which a thing may go
RESOLUTION = 5.0  # seconds: uses closer together are one
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|(?:([kmgt]i?)?b?))", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def cap_text() -> str:
    """`$TLGAN_CACHE_BYTES`, or the default: a share of the disk."""
    return os.environ.get(CAP_VARIABLE, "").strip() or DEFAULT_CAP


def cap_bytes(root: Path) -> int | None:
    """The cap of a cache at `root` in bytes, None for no cap. Raises `SpecError`."""
    text = cap_text()
    if text.lower() == "none":
        return None
    match = _AMOUNT.fullmatch(text)
    if match is None or (match[2] == "%" and float(match[1]) > 100):
        hint = 'write it as in 50GB, 200GiB, 20% (of the disk) or "none"'
        raise SpecError(f"{CAP_VARIABLE} is {text!r}; expected a number of bytes", hint=hint)
    if match[2] != "%":
        return int(float(match[1]) * _UNITS[(match[3] or "").lower()])
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    return int(shutil.disk_usage(there).total * float(match[1]) / 100)


@dataclass(frozen=True)
class Item:
    """A cached blob or a folder of an artifact. `files`: inode -> bytes; `names`: inode -> hard links it has anywhere."""

    path: Path
    used: float
    files: dict[tuple[int, int], int]
    names: dict[tuple[int, int], int]

    @property
    def digest(self) -> str:
        return self.path.name

    @property
    def is_blob(self) -> bool:
        return self.path.parent.name != "artifacts"


def cached_items(root: Path) -> Iterator[Item]:
    """Everything that may be removed from a cache, in no order. Other files below `root` are none of ours."""
    for folder in _below(root / "blobs"):
        for entry in _below(folder):
            if _DIGEST.fullmatch(entry.name) and not entry.is_dir():
                with contextlib.suppress(FileNotFoundError):
                    yield _item(entry, [entry])
    for folder in _below(root / "artifacts"):
        if _DIGEST.fullmatch(folder.name):
            with contextlib.suppress(FileNotFoundError):
                yield _item(folder, [path for path in folder.rglob("*") if not path.is_dir()])


def size_of(items: list[Item]) -> int:
    """Bytes on disk: a file with several names counts once."""
    return sum({inode: size for item in items for inode, size in item.files.items()}.values())


def trim(root: Path, cap: int, idle: float | None = None) -> int:
    """Removes what was used longest ago until the cache holds at most `cap` bytes; returns the bytes it then holds.

    What was used within `idle` seconds (default `IDLE`) stays, whatever the cap. A blob that folders hold too is worth
    nothing alone, so it waits until the last of them went.
    """
    items = list(cached_items(root))
    held, idle = size_of(items), IDLE if idle is None else idle
    names = {inode: count for item in items for inode, count in item.names.items()}
    waiting: dict[tuple[int, int], Item] = {}
    queue = [(item.used, str(item.path), item) for item in items]
    heapq.heapify(queue)
    while queue and held > cap:
        _, _, item = heapq.heappop(queue)
        if item.is_blob and (shared := [inode for inode in item.files if names[inode] > 1]):
            waiting[shared[0]] = item
            continue
        if not _remove(root, item, idle):
            continue
        held -= sum(size for inode, size in item.files.items() if names[inode] == 1)
        for inode in item.files:
            names[inode] -= 1
            if names[inode] == 1 and inode in waiting:
                blob = waiting.pop(inode)
                heapq.heappush(queue, (blob.used, str(blob.path), blob))
    if held > cap:
        log.info("the cache at %s holds %d bytes, more than its cap of %d: all of it is in use", root, held, cap)
    return held


def touch(path: Path) -> None:
    """Writes down that `path` is used now: in a folder's time stamp, or in a file's access time (the stamp stays)."""
    with contextlib.suppress(OSError):  # gone, or somebody else's and read-only
        stat, now = path.stat(), time.time_ns()
        if now - _used(stat) > RESOLUTION * 10**9:
            os.utime(path, ns=(now, now if S_ISDIR(stat.st_mode) else stat.st_mtime_ns))


def last_use(path: Path) -> float:
    """Seconds since the epoch: of a folder, when it was handed out, or a file that no other folder has was used."""
    stats = [file.stat(follow_symlinks=False) for file in path.rglob("*")] if path.is_dir() else []
    own = [stat for stat in stats if S_ISDIR(stat.st_mode) or stat.st_nlink <= 2]  # 2: its blob and itself
    return max(map(_used, [path.stat(), *own])) / 1e9


def _used(stat: os.stat_result) -> int:
    return stat.st_mtime_ns if S_ISDIR(stat.st_mode) else stat.st_atime_ns  # looking into a folder changes its atime


def _remove(root: Path, item: Item, idle: float) -> bool:
    """False when it was used just now or somebody works on it."""
    lock = root / "locks" / item.digest
    try:
        with file_lock(lock, timeout=0):
            if time.time() - last_use(item.path) < idle:
                return False
            aside = root / "tmp" / uuid.uuid4().hex
            aside.parent.mkdir(exist_ok=True)
            item.path.rename(aside)  # so that it is there whole or not at all
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
            with contextlib.suppress(OSError):  # an open file can't go on Windows
                lock.unlink()
            return True
    except OSError:  # TimeoutError too
        return False


def _item(path: Path, files: list[Path]) -> Item:
    stats = [file.stat(follow_symlinks=False) for file in files]
    sizes = {(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}
    names = {(stat.st_dev, stat.st_ino): stat.st_nlink for stat in stats}
    return Item(path, last_use(path), sizes, names)


def _below(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


class InUse:
    """Folders that were handed out to this process: a thread touches them until the process ends."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()
        self._lock = threading.Lock()
        self._owner = 0

    def add(self, path: Path) -> None:
        touch(path)
        with self._lock:
            self._paths.add(path)
            if self._owner != os.getpid():  # a fork has no thread of its parent's
                self._owner = os.getpid()
                threading.Thread(target=self._run, name="tlgan-cache", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(IDLE / 4)
            with self._lock:
                paths = list(self._paths)
            for path in paths:
                touch(path)


IN_USE = InUse()
