"""Bringing blobs from elsewhere (another store, an archive) into a store, one by one, with little room on disk."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from cluster.store.base import Store
from cluster.store.cache import cache_root
from cluster.store.layout import blob_key
from cluster.store.transfer import Placer, TransferStats, in_parallel, size_of, stored_sizes
from tlgan.errors import BackendError
from tlgan.manifest import FileEntry

Fetch = Callable[[FileEntry, Path], None]
"""Brings the verified bytes of an entry to a new file. Raises `NotFound`, `IntegrityError`."""


class Carrier(Placer):
    """Puts blobs where entries say. Those that the store lacks are fetched into a temporary file each, gone once it was sent.

    `room`: a directory for as many blobs as there are threads.
    """

    def __init__(self, store: Store, fetch: Fetch, stats: TransferStats, threads: int, room: Path) -> None:
        super().__init__(store, stats, threads)
        self.fetch, self.room = fetch, room
        self._done: set[str] = set()

    def place(self, entries: Iterable[FileEntry]) -> None:
        once = {blob_key(entry): entry for entry in entries}
        sizes = stored_sizes(self.store, once)
        in_parallel(lambda entry: self._carry(entry, sizes), once.values(), self.threads)

    def _carry(self, entry: FileEntry, sizes: Mapping[str, int | None]) -> None:
        key = blob_key(entry)
        if (sizes[key] if key in sizes else size_of(self.store, key)) != entry.size:
            put_fetched(self.store, key, entry, self.fetch, self.room)
            self.stats.add("uploaded", entry.size)
        elif key not in self._done:
            self.stats.add("reused", entry.size)
        self._done.add(key)


def put_fetched(store: Store, key: str, entry: FileEntry, fetch: Fetch, room: Path) -> None:
    """Fetches one blob and stores it at `key`, verified on both ways."""
    path = room / uuid.uuid4().hex
    try:
        fetch(entry, path)
        store.put(key, path, sha256=entry.sha256)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def workroom(cache_dir: Path | None = None) -> Iterator[Path]:
    """A temporary directory on the disk of the cache, which also sweeps what killed processes leave there."""
    parent = (cache_dir or cache_root() / "store") / "tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, prefix="move-")
    except OSError as error:
        hint = "set TLGAN_CACHE to a directory that can be written and has room"
        raise BackendError(f"can't write below {parent}: {error.strerror}", hint=hint) from None
    with folder as path:
        try:
            yield Path(path)
        except OSError as error:
            hint = "is the disk full? TLGAN_CACHE says where temporary files go"
            raise BackendError(f"can't write {error.filename or path}: {error.strerror}", hint=hint) from None
