"""The node's cache of blobs and of whole artifacts, shared by processes: one download per blob, every byte verified.

    blobs/3f/<sha256>      verified bytes
    artifacts/<digest>/    the files of a manifest, hard links to the blobs where the file system has them
    locks/  tmp/           one downloader at a time; what is being written

A verified file is given a fixed time stamp. Whoever writes to it changes the stamp (or the size), and it is hashed
again before its next use. The cache has a cap in bytes; `trimming.py` says what goes when it is reached.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path

from cluster.store import trimming
from cluster.store.base import check_digest, sha256_of
from cluster.store.filecopy import copy_hashed
from cluster.store.locks import file_lock
from tlgan.errors import BackendError
from tlgan.manifest import FileEntry, Manifest

VERIFIED_NS = 946_684_800 * 10**9  # 2000-01-01, even seconds: every file system can hold it
LOCK_TIMEOUT = 600.0
LEFTOVER_SECONDS = 24 * 3600
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)  # somebody else's cache can still be read from

Fetch = Callable[[FileEntry, Path], None]


def cache_root() -> Path:
    """`$TLGAN_CACHE`, or `~/.cache/tlgan`."""
    return Path(os.environ.get("TLGAN_CACHE") or Path.home() / ".cache" / "tlgan")


class Cache:
    """`fetch(entry, dest)` downloads and verifies one blob; it is called only for what the cache lacks."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root() / "store"
        self._swept = False
        self._fetched = False

    def blob(self, entry: FileEntry, fetch: Fetch) -> Path:
        """The cached, verified file of an entry."""
        path = self._blob(entry)
        with self._errors(path):
            if _is_verified(path, entry):
                trimming.touch(path)
                return path
            with self._lock(entry.sha256):
                if not _is_verified(path, entry):
                    with self._temporary() as temporary:
                        fetch(entry, temporary)
                        _mark(temporary)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(temporary, path)
                        self._fetched = True
        return path

    def drop(self, entry: FileEntry) -> None:
        self._blob(entry).unlink(missing_ok=True)

    def artifact(self, manifest: Manifest, fetch: Fetch) -> Path:
        """A directory with the files of `manifest`, which callers must not write to. Fetch its blobs before.

        It stays at least as long as this process lives.
        """
        path = self._artifact(manifest)
        with self._errors(path), self._lock(manifest.digest):
            if not _is_whole(path, manifest):
                self._build(path, manifest, fetch)
            trimming.IN_USE.add(path)
        return path

    def whole(self, manifest: Manifest) -> Path | None:
        """The directory that `artifact` would give, if it is there and unchanged: its blobs may be gone by now."""
        path = self._artifact(manifest)
        if not path.is_dir():
            return None
        with self._errors(path), self._lock(manifest.digest):
            if not _is_whole(path, manifest):
                return None
            trimming.IN_USE.add(path)
        return path

    def make_room(self, entries: Iterable[FileEntry]) -> None:
        """Removes what was not used for long, so that `entries` can be fetched under the cap."""
        missing = 0
        for path, size in {self._blob(entry): entry.size for entry in entries}.items():
            trimming.touch(path)
            missing += 0 if path.exists() else size
        if missing:
            self._trim(missing)

    def trim(self) -> None:
        """Brings the cache back under its cap, if this process put something in."""
        if self._fetched:
            self._fetched = False
            self._trim(0)

    def _trim(self, wanted: int) -> None:
        cap = trimming.cap_bytes(self.root)
        if cap is None:
            return
        with contextlib.suppress(OSError), file_lock(self.root / "locks" / "trim", timeout=0):
            trimming.trim(self.root, max(0, cap - wanted))

    def _artifact(self, manifest: Manifest) -> Path:
        return self.root / "artifacts" / manifest.digest

    def _blob(self, entry: FileEntry) -> Path:
        return self.root / "blobs" / entry.sha256[:2] / entry.sha256

    def _build(self, path: Path, manifest: Manifest, fetch: Fetch) -> None:
        with self._temporary() as temporary, self._temporary() as old:
            temporary.mkdir()
            for entry in manifest.files:
                target = temporary / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(self.blob(entry, fetch), target, entry)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.rename(old)
            temporary.rename(path)

    @contextlib.contextmanager
    def _lock(self, what: str) -> Iterator[None]:
        """Without the lock two processes would fetch the same thing, which is slow but right: never wait for ever."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.root / "locks" / what, timeout=LOCK_TIMEOUT))
            except OSError as error:
                if not isinstance(error, TimeoutError) and error.errno not in _READ_ONLY:
                    raise
            yield

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A free path that is removed afterwards, with everything below it."""
        directory = self.root / "tmp"
        directory.mkdir(parents=True, exist_ok=True)
        self._sweep(directory)
        path = directory / uuid.uuid4().hex
        try:
            yield path
        finally:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _sweep(self, directory: Path) -> None:
        """Removes what killed processes left behind."""
        if self._swept:
            return
        self._swept = True
        for path in directory.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat(follow_symlinks=False).st_ctime > LEFTOVER_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextlib.contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or path
            hint = "set TLGAN_CACHE to a directory that can be written and has room"
            raise BackendError(f"cache: can't use {place}: {error.strerror or error}", hint=hint) from None


def copy_verified(source: Path, target: FileIO, entry: FileEntry) -> None:
    """Copies while hashing what arrives; closes `target`, a new file that can be read. Raises `IntegrityError`."""
    with target, source.open("rb", buffering=0) as reading:
        found = copy_hashed(reading, target)
    check_digest(str(source), entry.sha256, found)


def _is_verified(path: Path, entry: FileEntry) -> bool:
    """Whether `path` holds the bytes of `entry`; they are hashed when somebody may have touched them."""
    try:
        stat = path.stat()
        if stat.st_size != entry.size:
            return False
        if stat.st_mtime_ns == VERIFIED_NS:
            return True
        if sha256_of(path) != entry.sha256:
            return False
        _mark(path)
        return True
    except FileNotFoundError:
        return False


def _is_whole(directory: Path, manifest: Manifest) -> bool:
    return directory.is_dir() and all(_is_verified(directory / entry.path, entry) for entry in manifest.files)


def _mark(path: Path) -> None:
    path.chmod(0o444)
    os.utime(path, ns=(time.time_ns(), VERIFIED_NS))


def _link(blob: Path, target: Path, entry: FileEntry) -> None:
    try:
        os.link(blob, target)
    except OSError:
        copy_verified(blob, target.open("x+b", buffering=0), entry)
        _mark(target)
