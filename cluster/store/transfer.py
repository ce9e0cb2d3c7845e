"""Moving files in: which files, their digests, and the upload of those the store does not have yet."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cluster.store.base import Store, sha256_of
from cluster.store.layout import blob_key
from tlgan.errors import Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import FileEntry
from tlgan.naming import check_paths

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class TransferStats:
    """Blob bytes so far: sent, found to be stored already, and received."""

    uploaded: int = 0
    reused: int = 0
    downloaded: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, what: str, size: int) -> None:
        with self._lock:
            setattr(self, what, getattr(self, what) + size)


def in_parallel(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """`work` of every item, in order. The first error stops what has not started and is raised."""
    todo = list(items)
    if len(todo) < 2:
        return [work(item) for item in todo]
    with ThreadPoolExecutor(min(threads, len(todo)), thread_name_prefix="tlgan-store") as pool:
        futures = [pool.submit(work, item) for item in todo]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def collect(files: Path | Mapping[str, Path]) -> dict[str, Path]:
    """Path inside the artifact -> file: of a directory (walked), of one file, or as given.

    Raises `NotFound` for a missing file, `SpecError` for a link, a device or a name that the grammar refuses.
    """
    if isinstance(files, Mapping):
        found = {name: Path(path) for name, path in files.items()}
    elif files.is_dir():
        found = dict(_walk(files, ""))
    else:
        found = {files.name: files}
    check_paths(found)
    for path in found.values():
        if not path.exists():
            raise NotFound(f"{path} does not exist")
        if not path.is_file():
            raise SpecError(f"{path} is no file", hint="give a file, or a directory by itself")
    return dict(sorted(found.items()))


def _walk(directory: Path, prefix: str) -> Iterable[tuple[str, Path]]:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_symlink():
            raise SpecError(f"{path} is a symbolic link", hint="put a copy there: an artifact must not depend on links")
        if entry.is_dir():
            yield from _walk(path, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield f"{prefix}{entry.name}", path
        else:
            raise SpecError(f"{path} is neither a file nor a directory")


def stage(store: Store, files: Path | Mapping[str, Path], stats: TransferStats, threads: int) -> list[FileEntry]:
    """Uploads what is missing, each content once; returns the entries for a manifest, by path."""
    try:
        found = collect(files)
        digests = in_parallel(sha256_of, found.values(), threads)
    except OSError as error:
        raise SpecError(f"can't read {error.filename}: {error.strerror}") from None
    entries = [
        FileEntry(path=path, size=source.stat().st_size, sha256=digest)
        for (path, source), digest in zip(found.items(), digests, strict=True)
    ]
    once = {entry.sha256: (entry, found[entry.path]) for entry in entries}
    in_parallel(lambda pair: _upload(store, *pair, stats), once.values(), threads)
    return entries


def _upload(store: Store, entry: FileEntry, source: Path, stats: TransferStats) -> None:
    key = blob_key(entry.sha256)
    known = store.head(key)
    if known is not None and known.size == entry.size:
        stats.add("reused", entry.size)
        return
    try:
        store.put(key, source, sha256=entry.sha256)
    except (IntegrityError, FileNotFoundError):
        hint = "push again when nothing writes to it any more"
        raise Conflict(f"{source} changed while it was pushed", hint=hint) from None
    stats.add("uploaded", entry.size)
