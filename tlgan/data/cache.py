"""Prepared arrays on disk: an entry appears whole or not at all, and is made once however many processes ask.

    <cache>/datasets/<key>/images.npy   uint8 [N, C, H, W], read through a memory map
                           labels.npy   int64 [N]
                           meta.json    digest, label names, what was left out and why

The key is a digest of everything that decides the content, the code included. Entries can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tlgan.canonical import canonical_json
from tlgan.data.source import Int64Array, UInt8Array
from tlgan.errors import DataError

Images = np.memmap[Any, np.dtype[np.uint8]]


class Rows:
    """Writes images one by one into `images.npy`, whose length is known only at the end."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.count = 0
        self._file = path.open("wb")
        self._body = self._header()

    def _header(self) -> int:
        shape = (self.count, *self.shape)
        # numpy leaves room in the header for the first axis to grow, so its length does not change.
        np.lib.format.write_array_header_1_0(self._file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return self._file.tell()

    def append(self, x_nchw: UInt8Array) -> None:
        if x_nchw.shape[1:] != self.shape or x_nchw.dtype != np.uint8:
            raise AssertionError(f"expected uint8 {self.shape}; received {x_nchw.dtype} {x_nchw.shape[1:]}")
        self._file.write(np.ascontiguousarray(x_nchw).data)
        self.count += len(x_nchw)

    def close(self) -> None:
        self._file.seek(0)
        if self._header() != self._body:
            raise AssertionError("the header of images.npy changed its length")
        self._file.close()


def content_digest(images: UInt8Array, labels: Int64Array, label_names: list[str]) -> str:
    """sha256 over shape, label names, images and labels: equal datasets have equal digests, wherever they come from."""
    head = {"shape": list(images.shape), "label_names": label_names}
    sha = hashlib.sha256(canonical_json(head) + b"\n")
    for start in range(0, len(images), 4096):
        sha.update(np.ascontiguousarray(images[start : start + 4096]).data)
    sha.update(np.ascontiguousarray(labels.astype("<i8")).data)
    return sha.hexdigest()


def code_digest(*modules: str) -> str:
    """Digest of the modules' source text: pictures made by other code are other pictures."""
    sha = hashlib.sha256()
    for name in modules:
        file = importlib.import_module(name).__file__
        sha.update(Path(file).read_bytes() if file else b"")
    return sha.hexdigest()


def cached(root: Path, key: str, build: Callable[[Path], None]) -> Path:
    """The directory `root/key`; when it is not there, `build` fills a private directory that is then renamed to it.

    Several processes may ask at once: one builds, the others wait. Whatever `build` raises leaves nothing behind.
    Raises `DataError` when the cache can't be written.
    """
    final = root / key
    if is_whole(final):
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with only_one(root / f".{key}.lock"):
            if not is_whole(final):
                _build_into(final, build)
    except OSError as error:
        raise DataError(
            f"the data cache {root} can't be written: {error.strerror or error}",
            hint="free some space there, or set TLGAN_CACHE to a directory that is writable",
        ) from None
    return final


def is_whole(directory: Path) -> bool:
    """Whether an entry can be used: all files there and the arrays of the promised length."""
    try:
        meta = json.loads((directory / "meta.json").read_text())
        images = np.load(directory / "images.npy", mmap_mode="r")
        return bool(len(images) == meta["count"] == len(np.load(directory / "labels.npy", mmap_mode="r")))
    except (OSError, ValueError, KeyError):
        return False


def drop_unused(root: Path, seconds: float) -> None:
    """Removes the entries whose folder's time stamp is so old. Who has one open keeps what it sees, where the system is POSIX."""
    for entry in root.iterdir():
        with contextlib.suppress(OSError):
            if entry.is_dir() and not entry.name.startswith(".") and time.time() - entry.stat().st_mtime > seconds:
                aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".tmp", dir=root))
                entry.rename(aside / "unused")
                shutil.rmtree(aside, ignore_errors=True)


def _build_into(final: Path, build: Callable[[Path], None]) -> None:
    # Only the holder of the lock is here, so whatever lies around under this key was left by a killed process.
    for leftover in final.parent.glob(f".{final.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    if final.exists():
        shutil.rmtree(final)
    private = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    try:
        build(private)
        private.chmod(0o755)
        private.rename(final)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """An advisory lock between processes; released by the system when its holder dies."""
    with path.open("a") as file:
        try:
            import fcntl
        except ImportError:  # Windows: the rename still decides, the work may be done twice
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases it; the empty file stays, for removing it would race
