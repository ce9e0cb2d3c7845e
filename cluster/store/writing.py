"""Writing files into a folder of a person's choice: it appears whole or not at all, and no link is followed on the way.

The folder's parent is opened once, and everything below it by descriptor, link by link refused. Whoever swaps a folder
for a link while the files are written gains nothing: they go where the parent was when it began, or nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType

from tlgan.errors import Conflict

_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
HINT = "choose a new or empty folder that nobody else writes to"


class NewFolder:
    """A folder that gets its name `dest` by `appear`; left without it, nothing stays. For a `with` block."""

    def __init__(self, dest: Path) -> None:
        self.dest = dest.absolute()
        self._name = f".{self.dest.name}.{uuid.uuid4().hex[:8]}.part"
        self._parent = self._root = -1

    def __enter__(self) -> NewFolder:
        self.dest.parent.mkdir(parents=True, exist_ok=True)
        if not _BY_DESCRIPTOR:
            self._temporary.mkdir()
            return self
        self._parent = os.open(self.dest.parent, _FOLDER)
        try:
            os.mkdir(self._name, dir_fd=self._parent)
            self._root = os.open(self._name, _FOLDER | _NO_LINK, dir_fd=self._parent)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not _BY_DESCRIPTOR:
            shutil.rmtree(self._temporary, ignore_errors=True)
            return
        shutil.rmtree(self._name, ignore_errors=True, dir_fd=self._parent)
        for descriptor in (self._root, self._parent):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._root = self._parent = -1

    @property
    def _temporary(self) -> Path:
        return self.dest.with_name(self._name)

    def create(self, path: str) -> FileIO:
        """A new file at `path`, to write and to read back, which `check_path` let through; the folders above it are made."""
        if not _BY_DESCRIPTOR:
            target = self._temporary / path
            target.parent.mkdir(parents=True, exist_ok=True)
            return target.open("x+b", buffering=0)
        with self._folder_of(path) as (folder, name):
            return os.fdopen(os.open(name, _NEW, 0o666, dir_fd=folder), "r+b", buffering=0)

    def remove(self, path: str) -> None:
        """Takes a file away that `create` made."""
        if not _BY_DESCRIPTOR:
            (self._temporary / path).unlink()
            return
        with self._folder_of(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """Descriptor of the folder that `path` lies in, made where it is missing, and the last part of `path`."""
        *folders, name = path.split("/")
        here = os.dup(self._root)
        try:
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=here)
                above, here = here, os.open(folder, _FOLDER | _NO_LINK, dir_fd=here)
                os.close(above)
            yield here, name
        finally:
            os.close(here)

    def appear(self) -> None:
        """Gives the folder its name. Raises `Conflict` when something else stands there by now, or above it."""
        try:
            if not _BY_DESCRIPTOR:
                if self.dest.is_dir():
                    self.dest.rmdir()  # it was empty a moment ago; somebody's new file makes this fail
                self._temporary.rename(self.dest)
                return
            self._check_place()
            os.rename(self._name, self.dest.name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Conflict(f"{self.dest} was made by somebody else meanwhile", hint=HINT) from None
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Conflict(f"{self.dest} was filled by somebody else meanwhile", hint=HINT) from None
            raise

    def _check_place(self) -> None:
        try:
            mine = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
            same = os.path.samestat(os.stat(self.dest.parent), os.fstat(self._parent))
            same = same and os.path.samestat(mine, os.fstat(self._root))
        except FileNotFoundError:
            same = False
        if not same:
            raise Conflict(f"{self.dest.parent} was replaced by something else meanwhile", hint=HINT)
