"""A directory as a store. Objects appear whole: temporary name, fsync, then rename or link.

`.tmp/` holds what is being written, `.lock` serialises compare-and-swap. Works on a shared file system whose rename and
link are atomic (POSIX, NFS).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO

from cluster.store.base import Capabilities, ObjectInfo, check_digest, too_large
from cluster.store.filecopy import copy_hashed
from cluster.store.locks import file_lock
from tlgan.errors import BackendError, Conflict, NotFound
from tlgan.naming import check_path

LOCK_TIMEOUT = 60.0


class DirectoryStore:
    """The backend for `file:///path`. The directory is made by the first write."""

    capabilities = Capabilities(create_only=True, compare_and_swap=True)

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self.root)!r})"

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        path = self._path(key)
        with self._errors("write", path), self._staged(data, sha256, key) as temporary:
            self._install(temporary, path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._errors("write", path), self._staged(data, None, key) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError:  # no hard links here (FAT, some network mounts)
                with file_lock(self.root / ".lock", timeout=LOCK_TIMEOUT):
                    if path.exists():
                        return False
                    self._install(temporary, path)
            _sync_directory(path.parent)
            return True

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> str:
        path = self._path(key)
        with (
            self._errors("write", path),
            self._staged(data, None, key) as temporary,
            file_lock(self.root / ".lock", timeout=LOCK_TIMEOUT),
        ):
            current = _token(path.read_bytes()) if path.exists() else None
            if current != expected:
                raise Conflict(f"{key} in {self.url} was changed by somebody else")
            self._install(temporary, path)
        return _token(data)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        path = self._path(key)
        with self._errors("read", path), self._open(path, key) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise too_large(f"{key} in {self.url}", size, max_bytes)
            return file.read()

    def read(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        data = self.get(key, max_bytes=max_bytes)
        return data, _token(data)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        path = self._path(key)
        with self._errors("read", path), self._open(path, key) as file:
            file.seek(start)
            return file.read(max(0, end - start))

    def download(self, key: str, dest: Path, *, sha256: str | None = None, size: int | None = None) -> None:
        source = self._path(key)
        try:
            with self._errors("copy", source), self._open(source, key) as file, dest.open("x+b", buffering=0) as target:
                found = copy_hashed(file, target, size)
                there = os.fstat(file.fileno()).st_size
            if size is not None and there > size:
                raise too_large(f"{key} in {self.url}", there, size)
            if sha256 is not None:
                check_digest(f"{key} in {self.url}", sha256, found)
        except BaseException:
            dest.unlink(missing_ok=True)
            raise

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with self._errors("read", path):
            try:
                return _info(key, path.stat()) if path.is_file() else None
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        parent = prefix.rpartition("/")[0]
        start = self.root / check_path(parent) if parent else self.root
        with self._errors("list", start):
            if not self.root.exists():
                return
            if not self.root.is_dir():
                raise NotADirectoryError(20, "Not a directory", str(self.root))
            yield from self._walk(start, parent + "/" if parent else "", prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        start = self.root / check_path(prefix.removesuffix("/"))
        with self._errors("list", start):
            try:
                with os.scandir(start) as found:
                    names = sorted(f"{entry.name}/" for entry in found if entry.is_dir(follow_symlinks=False))
            except (FileNotFoundError, NotADirectoryError):
                if self.root.exists() and not self.root.is_dir():
                    raise
                return
            for name in names:
                key = prefix + name
                if next(self._walk(start / name, key, key), None):  # a folder stays when its last object is deleted
                    yield name.removesuffix("/")

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._errors("delete", path), contextlib.suppress(FileNotFoundError):
            path.unlink()

    def _walk(self, directory: Path, key: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(directory) as found:  # in the order of whole keys: "a.b" before "a/b"
                entries = sorted(found, key=lambda entry: entry.name + ("/" if entry.is_dir() else ""))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = key + entry.name
            if not key and (entry.name == ".tmp" or entry.name.startswith(".lock")):
                continue
            if entry.is_dir(follow_symlinks=False):
                if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                    yield from self._walk(Path(entry.path), f"{name}/", prefix)
            elif name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # deleted since
                    yield _info(name, entry.stat())

    def _path(self, key: str) -> Path:
        return self.root / check_path(key)

    def _open(self, path: Path, key: str) -> FileIO:
        try:
            return path.open("rb", buffering=0)
        except (FileNotFoundError, IsADirectoryError):
            raise NotFound(f"{key} does not exist in {self.url}") from None

    @contextlib.contextmanager
    def _staged(self, data: bytes | Path, sha256: str | None, key: str) -> Iterator[Path]:
        """A synced temporary file with the content; gone afterwards unless it was moved."""
        directory = self.root / ".tmp"
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / uuid.uuid4().hex
        try:
            with temporary.open("x+b", buffering=0) as target:
                found = _write(data, target)
                os.fsync(target.fileno())
            if sha256 is not None:
                check_digest(str(data) if isinstance(data, Path) else key, sha256, found)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _install(self, temporary: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
        _sync_directory(path.parent)

    @contextlib.contextmanager
    def _errors(self, action: str, path: Path) -> Iterator[None]:
        """Turns what the system says into an error that names the store, the path and a way out."""
        try:
            yield
        except TimeoutError as error:
            raise BackendError(f"store {self.url}: {error}", hint="is another process stuck?") from None
        except OSError as error:
            place = error.filename or path
            hint = "check the path and its permissions and free space, or choose another store with --store"
            raise BackendError(
                f"store {self.url}: can't {action} {place}: {error.strerror or error}", hint=hint
            ) from None


def _write(data: bytes | Path, target: IO[bytes]) -> str:
    """Writes `data`; returns the sha256 of what was written."""
    if isinstance(data, Path):
        with data.open("rb", buffering=0) as source:
            return copy_hashed(source, target)
    written = 0
    while written < len(data):
        written += target.write(data[written:])
    return hashlib.sha256(data).hexdigest()


def _token(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _sync_directory(path: Path) -> None:
    """Makes a rename last through a power cut, where directories can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
