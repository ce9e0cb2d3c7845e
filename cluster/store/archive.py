"""Artifacts as one plain tar, for a place that no network reaches. Inside it is laid out as a store is:

    SHA256SUMS            digest and key of every other member; `sha256sum -c` reads it
    FORMAT.json
    signatures/<name>/<UTC>-<digest16>.<key>.sig
    versions/<name>/<UTC>-<digest16>.json
    blobs/3f/<sha256>

in this order, each part sorted, uncompressed, without times and owners: the same artifacts make the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.store.base import Store
from cluster.store.layout import FORMAT_KEY, Version, blob_key, format_record
from cluster.store.signing import read_signatures
from cluster.store.verifying import Told, verified_ranges
from tlgan.errors import BackendError, Conflict, SpecError
from tlgan.manifest import FileEntry, Manifest

INDEX = "SHA256SUMS"
BLOCK = tarfile.BLOCKSIZE
END = b"\0" * (2 * BLOCK)
OLD_LIMIT = 8**11
"""From this size on a tar's plain size field is too short."""


@dataclass(frozen=True)
class Exported:
    """`bytes` of the file and its `sha256`, `blobs`: how many."""

    path: Path
    bytes: int
    sha256: str
    blobs: int


def export(store: Store, manifests: Sequence[Manifest], dest: Path, told: Told = lambda size: None) -> Exported:
    """Writes the tar. It appears at `dest` whole or not at all. `told` hears the bytes of blobs.

    Raises `Conflict` when `dest` exists, `IntegrityError` for a damaged blob, `NotFound` for a missing one.
    """
    small = {FORMAT_KEY: format_record()}
    for manifest in manifests:
        version = Version.of(manifest)
        small |= {version.key: manifest.to_json()} | read_signatures(store, version)
    blobs = {blob_key(blob): blob for manifest in manifests for blob in manifest.blobs}
    with _new_file(dest) as file:
        writer = _Writer(file)
        for name, data in [(INDEX, _index(small, blobs)), *sorted(small.items())]:
            writer.member(name, len(data), [data])
        for key, entry in sorted(blobs.items()):
            writer.member(key, entry.size, _telling(verified_ranges(store, entry), told))
        file.write(END)
        writer.hasher.update(END)
        size = file.tell()
    return Exported(dest, size, writer.hasher.hexdigest(), len(blobs))


def header(name: str, size: int) -> bytes:
    """One block: what stands before the bytes of a member."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    try:
        return member.tobuf(tarfile.USTAR_FORMAT if size < OLD_LIMIT else tarfile.GNU_FORMAT)
    except ValueError:
        raise SpecError(f"{name} is too long a name for a tar") from None


def padding(size: int) -> int:
    """Bytes from the end of a member to the next block."""
    return -size % BLOCK


def _index(small: dict[str, bytes], blobs: dict[str, FileEntry]) -> bytes:
    rows = [(hashlib.sha256(data).hexdigest(), key) for key, data in sorted(small.items())]
    rows += [(entry.sha256, key) for key, entry in sorted(blobs.items())]
    return "".join(f"{digest}  {key}\n" for digest, key in rows).encode()


def _telling(pieces: Iterable[bytes], told: Told) -> Iterator[bytes]:
    for data in pieces:
        yield data
        told(len(data))


class _Writer:
    """Writes members and hashes all of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hasher = file, hashlib.sha256()

    def member(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        self._write(header(name, size))
        for data in pieces:
            self._write(data)
        self._write(b"\0" * padding(size))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.hasher.update(data)


@contextlib.contextmanager
def _new_file(dest: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when the block ends well and everything is on the disk."""
    if os.path.lexists(dest):
        raise Conflict(f"{dest} exists already", hint="choose another name, or remove it")
    temporary = dest.with_name(f".{dest.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _take_name(temporary, dest)
    except OSError as error:
        hint = "check the path, its permissions and the free space"
        raise BackendError(f"can't write {dest}: {error.strerror or error}", hint=hint) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _take_name(temporary: Path, dest: Path) -> None:
    """Unlike a rename alone it writes over nobody's file, where there are hard links."""
    try:
        os.link(temporary, dest)
    except FileExistsError:
        raise Conflict(f"{dest} exists already", hint="choose another name, or remove it") from None
    except OSError:
        os.rename(temporary, dest)
    descriptor = os.open(dest.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
