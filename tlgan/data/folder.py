"""A folder of images, nested at will. Labels are the names of the first-level subfolders, or come from a CSV file.

Hidden files and folders and files that are no images by name are passed over. Links to folders are followed once.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from tlgan.canonical import digest_of
from tlgan.data.image import ALPHA, decode, is_grey
from tlgan.data.labels import read_labels
from tlgan.data.source import NO_LABEL, BrokenImage, UInt8Array
from tlgan.errors import DataError, NotFound
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class Folder:
    """Images in the order of their relative paths. `channels` is 1 only when all of them are grey,
    and what the spec says where it asks for alpha."""

    parallel = True
    own_split = False

    def __init__(self, spec: DataSpec) -> None:
        self.root = Path(spec.path or "").expanduser().absolute()
        self._alpha = spec.channels if spec.channels in ALPHA else None
        if not self.root.exists():
            raise NotFound(f"there is no folder {self.root}", hint="check data.path")
        if not self.root.is_dir():
            raise DataError(f"{self.root} is a file; the folder source expects a folder", hint="pass its parent folder")
        self.files = list_images(self.root)
        if not self.files:
            kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise DataError(f"no images in {self.root}", hint=f"expected files of these kinds, at any depth: {kinds}")
        label_of = read_labels(spec.labels, self.root, self.files) if spec.labels else subfolder_labels(self.files)
        self.label_names = sorted(set(label_of.values()))
        number = {name: label for label, name in enumerate(self.label_names)}
        self._labels = [number[label_of[file]] if file in label_of else NO_LABEL for file in self.files]

    @cached_property
    def channels(self) -> int:
        paths = (self.root / file for file in self.files)
        if self._alpha:
            return self._alpha
        return 3 if any(path.is_file() and is_grey(path) is False for path in paths) else 1

    def __len__(self) -> int:
        return len(self.files)

    def name_of(self, index: int) -> str:
        return printable(self.files[index])

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        path, name = self.root / self.files[index], self.name_of(index)
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise BrokenImage(name, "not a regular file")
        return decode(path, name, size, self.channels), self._labels[index]

    @cached_property
    def _listing(self) -> str:
        return digest_of([[printable(file), *_state(self.root / file)] for file in self.files])

    def fingerprint(self) -> dict[str, Any]:
        labels = digest_of([self.label_names, self._labels])
        return {"folder": printable(str(self.root)), "files": self._listing, "labels": labels}


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns; zeros for a link that leads nowhere."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def list_images(root: Path) -> list[str]:
    """Relative paths with `/`, sorted."""
    found: list[str] = []
    seen: set[str] = set()
    for directory, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:  # a link back to a folder that was walked already
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(directory).relative_to(root)
        visible = (name for name in files if not name.startswith("."))
        found += [(here / name).as_posix() for name in visible if Path(name).suffix.lower() in SUFFIXES]
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise DataError(f"the folder {error.filename} can't be read: {error.strerror}", hint="check its permissions")


def printable(file: str) -> str:
    """Bytes of a file name that are no UTF-8 shown as question marks, so that the name can be stored and printed."""
    return file.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def subfolder_labels(files: list[str]) -> dict[str, str]:
    """Label by file; files that lie directly in the folder have none."""
    return {file: printable(file.split("/", 1)[0]) for file in files if "/" in file}
