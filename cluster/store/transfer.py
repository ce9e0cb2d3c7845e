"""Moving files in: which files, their digests, and the upload of those the store does not have yet."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cluster.store.base import Store, sha256_of
from cluster.store.layout import blob_key, moved
from tlgan.errors import Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import FileEntry
from tlgan.naming import check_paths

T = TypeVar("T")
R = TypeVar("R")

LIST_FROM = 32  # blobs; fewer are asked for one by one
LISTED_PER_BLOB = 20  # a listing has 1000 keys a request and costs about as much as asking for 20


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


@dataclass(frozen=True)
class Stretch:
    """`size` bytes of a file, from `start` on."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


class Placer:
    """Puts blobs where entries say. `sources`: sha256 -> where it is at hand; what has no source must be in the store already."""

    def __init__(
        self, store: Store, stats: TransferStats, threads: int, sources: Mapping[str, Path | Stretch] | None = None
    ) -> None:
        self.store, self.stats, self.threads = store, stats, threads
        self.sources = dict(sources or {})
        self.safe: Callable[[], bool] = lambda: False
        """Whether nobody can have deleted what `place_data` has placed."""
        self._placed: set[str] = set()
        self._early: set[str] = set()

    def place(self, entries: Iterable[FileEntry]) -> None:
        """Uploads what is missing, each content once.

        Raises `NotFound` for a content that is neither stored nor at hand, `Conflict` for a file that changed.
        """
        once = {blob_key(entry): entry for entry in entries}
        if not self._early.isdisjoint(once) and self.safe():  # some servers read all of an object to answer for it
            once = {key: entry for key, entry in once.items() if key not in self._early}
        sizes = stored_sizes(self.store, once)
        in_parallel(lambda entry: self._place(entry, sizes), once.values(), self.threads)

    def place_data(self, entry: FileEntry, data: bytes) -> None:
        """Uploads `data`, whose digest is the entry's, if it is missing."""
        key = blob_key(entry)
        there = size_of(self.store, key) == entry.size
        if not there:
            self.store.put(key, data)
        self.stats.add("reused" if there else "uploaded", entry.size)
        self._placed.add(key)
        self._early.add(key)

    def _place(self, entry: FileEntry, sizes: Mapping[str, int | None]) -> None:
        key = blob_key(entry)
        if (sizes[key] if key in sizes else size_of(self.store, key)) != entry.size:
            if (source := self.sources.get(entry.sha256)) is None:
                self._copy(entry)
            else:
                self._upload(key, entry, source)
        elif key not in self._placed:
            self.stats.add("reused", entry.size)
        self._placed.add(key)

    def _upload(self, key: str, entry: FileEntry, source: Path | Stretch) -> None:
        try:
            data = source.read() if isinstance(source, Stretch) else source
            self.store.put(key, data, sha256=entry.sha256)
        except (IntegrityError, FileNotFoundError):
            raise changed(source.path if isinstance(source, Stretch) else source) from None
        self.stats.add("uploaded", entry.size)

    def _copy(self, entry: FileEntry) -> None:
        """From another stored copy of the content, through this machine, where it is verified."""
        first = blob_key(moved(entry, None))
        with tempfile.TemporaryDirectory(prefix="tlgan-copy-") as folder:
            for info in self.store.list(first):
                with contextlib.suppress(NotFound, IntegrityError):
                    self.store.download(info.key, Path(folder) / "blob", sha256=entry.sha256, size=entry.size)
                    self._upload(blob_key(entry), entry, Path(folder) / "blob")
                    return
        hint = "stage the files first"
        raise NotFound(f"{entry.path}: its content {entry.sha256[:16]} is not in {self.store.url}", hint=hint)


def changed(path: object) -> Conflict:
    hint = "push again when nothing writes to it any more"
    return Conflict(f"{path} changed while it was pushed", hint=hint)


def size_of(store: Store, key: str) -> int | None:
    info = store.head(key)
    return info.size if info else None


def stored_sizes(store: Store, keys: Collection[str]) -> dict[str, int | None]:
    """Size of each blob, None for one that is not stored, by one listing. In a large store it gives up early: the keys
    that it did not come to are left out.
    """
    if len(keys) < LIST_FROM:
        return {}
    found: dict[str, int | None] = {}
    for number, info in enumerate(store.list("blobs/")):
        if number == LISTED_PER_BLOB * len(keys):
            return {key: found.get(key) for key in keys if key < info.key}
        if info.key in keys:
            found[info.key] = info.size
    return {key: found.get(key) for key in keys}


def describe(store: Store, files: Mapping[str, Path], threads: int) -> list[FileEntry]:
    """Size and digest of files by their path in the artifact. A store may hash in a way that saves it work at `put`."""
    hash_file: Callable[[Path], str] = getattr(store, "hash_file", sha256_of)
    try:
        digests = in_parallel(hash_file, files.values(), threads)
        return [
            FileEntry(path=path, size=source.stat().st_size, sha256=digest)
            for (path, source), digest in zip(files.items(), digests, strict=True)
        ]
    except OSError as error:
        raise SpecError(f"can't read {error.filename}: {error.strerror}") from None
