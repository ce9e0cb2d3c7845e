"""Reading a tar that `archive.py` has written, or somebody who means harm: every byte is checked before anything is published.

Nothing is ever unpacked by the names that stand in the file. The list of digests comes first and says which members follow, in
which order; manifests say how large each blob is. A member that is anything but the plain file that is due ends the reading.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cluster.store import signing
from cluster.store.archive import BLOCK, INDEX, padding
from cluster.store.base import CHUNK, check_digest
from cluster.store.copying import Placed, place
from cluster.store.history import parents_first
from cluster.store.layout import FORMAT_KEY, Version, blob_key, format_record, signature_prefix
from cluster.store.protocol import ArtifactStore
from cluster.store.verifying import Told
from tlgan.errors import BackendError, IntegrityError, NotFound, SpecError
from tlgan.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest
from tlgan.naming import check_path

MAX_INDEX_BYTES = 64 << 20
_ROW = re.compile(
    r"([0-9a-f]{64})  "
    r"(FORMAT\.json|signatures/[^\s/]+/[^\s/]+\.sig|versions/[^\s/]+/[^\s/]+\.json|blobs/[0-9a-f]{2}/[0-9a-f]{64}(?:-[0-9a-f]{8,32})?)"
)
_PARTS = (FORMAT_KEY, "signatures", "versions", "blobs")
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a pipe",
}


@dataclass
class Archive:
    """A verified tar that is open. `manifests` are parents first; `places`: key -> offset of a blob's bytes.

    `signatures`: key -> bytes, of versions in the file. Whether they are genuine shows when a key is at hand: on a pull.
    """

    path: Path
    file: BinaryIO
    manifests: list[Manifest] = field(default_factory=list)
    signatures: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    @property
    def roots(self) -> list[Manifest]:
        """Those that no other one in the file was made from."""
        parents = {parent.digest for manifest in self.manifests for parent in manifest.parents}
        return [manifest for manifest in self.manifests if manifest.digest not in parents]

    def signatures_of(self, manifest: Manifest) -> dict[str, bytes]:
        prefix = signature_prefix(Version.of(manifest))
        return {key: data for key, data in self.signatures.items() if key.startswith(prefix)}

    def fetch(self, entry: FileEntry, dest: Path) -> None:
        """A blob into a new file. Safe from several threads. Raises `IntegrityError` when the file was changed since."""
        offset, left, hasher = self.places[blob_key(entry)], entry.size, hashlib.sha256()
        with dest.open("xb") as target:
            while left and (data := os.pread(self.file.fileno(), min(left, CHUNK), offset)):
                target.write(data)
                hasher.update(data)
                offset, left = offset + len(data), left - len(data)
        check_digest(f"{blob_key(entry)} in {self.path}", entry.sha256, hasher.hexdigest())


@contextmanager
def verified(path: Path, told: Told = lambda size: None) -> Iterator[Archive]:
    """A tar of which every byte was read and found right. `told` hears the bytes as they are read.

    Raises `NotFound`, `SpecError` for what is no file, `IntegrityError` for anything that should not be in it.
    """
    if not path.exists():
        raise NotFound(f"{path} does not exist")
    if not path.is_file():
        raise SpecError(f"{path} is no file", hint="give a file as `tlgan artifact export` writes it")
    file = None
    try:
        file = path.open("rb")
        archive = _Reader(path, file, os.fstat(file.fileno()).st_size, told).read()
    except OSError as error:
        raise BackendError(f"can't read {path}: {error.strerror or error}") from None
    else:
        yield archive
    finally:
        if file:
            file.close()


def take_in(target: ArtifactStore, archive: Archive, manifest: Manifest, aliases: Iterable[str] = ()) -> Placed:
    """Publishes one artifact of a verified tar, with its signatures where its digest stays."""
    placed = place(target, manifest, archive.fetch, aliases)
    if placed.same:
        for key, data in archive.signatures_of(manifest).items():
            target.store.put(key, data)
    return placed


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, size: int, told: Told) -> None:
        self.path, self.file, self.size, self.told = path, file, size, told

    def read(self) -> Archive:
        archive = Archive(self.path, self.file)
        index = self._index()
        archive.signatures = {
            key: self._checked(key, digest, signing.MAX_BYTES)
            for key, digest in index.items()
            if key.startswith("signatures/")
        }
        manifests = {key: self._manifest(key, digest) for key, digest in index.items() if key.startswith("versions/")}
        known = tuple(signature_prefix(Version.of(manifest)) for manifest in manifests.values())
        if stray := [key for key in archive.signatures if not key.startswith(known)]:
            raise self._refused(f"{stray[0]} is the signature of a version that is not in the list")
        due = {blob_key(blob): blob for manifest in manifests.values() for blob in manifest.blobs}
        blobs = [key for key in index if key.startswith("blobs/")]
        if odd := sorted(due.keys() ^ set(blobs)):
            which = (
                "needed by a manifest and not in the list" if odd[0] in due else "in the list and needed by no manifest"
            )
            raise self._refused(f"{odd[0]} is {which}")
        for key in blobs:
            if due[key].sha256 != index[key]:
                raise self._refused(f"the list gives {key} the digest {index[key]}")
            self._header(key, due[key].size)
            archive.places[key] = self.file.tell()
            check_digest(f"{key} in {self.path}", index[key], self._hash(due[key].size))
            self._pad(due[key].size)
        self._end()
        archive.manifests = parents_first(list(manifests.values()))
        return archive

    def _index(self) -> dict[str, str]:
        """Key -> digest, in the order of the members. Reads the format's record too."""
        lines = self._small(INDEX, MAX_INDEX_BYTES).decode("ascii", errors="replace").split("\n")
        if lines.pop() != "":
            raise self._refused(f"{INDEX} does not end with a line break")
        index: dict[str, str] = {}
        for line in lines:
            match = _ROW.fullmatch(line)
            if match is None:
                raise self._refused(f"{INDEX} has the line {line[:120]!r}")
            check_path(match[2])
            index[match[2]] = match[1]
        if len(index) != len(lines) or list(index) != sorted(index, key=_order):
            raise self._refused(f"{INDEX} names something twice, or not in order")
        record = self._small(FORMAT_KEY, 4096)
        if record != format_record():
            hint = "a newer tlgan may have written it"
            raise self._refused(f"{FORMAT_KEY} is {record[:80]!r}; expected {format_record()!r}", hint)
        if index.get(FORMAT_KEY) != hashlib.sha256(record).hexdigest():
            raise self._refused(f"{INDEX} does not give {FORMAT_KEY} its digest")
        return index

    def _manifest(self, key: str, digest: str) -> Manifest:
        manifest = Manifest.from_json(self._small(key, MAX_MANIFEST_BYTES), digest)
        if Version.of(manifest).key != key:
            raise self._refused(f"{key} is the manifest of {Version.of(manifest).key}")
        return manifest

    def _checked(self, key: str, digest: str, limit: int) -> bytes:
        data = self._small(key, limit)
        check_digest(f"{key} in {self.path}", digest, hashlib.sha256(data).hexdigest())
        return data

    def _small(self, name: str, limit: int) -> bytes:
        size = self._header(name, None)
        if size > limit:
            raise self._refused(f"{name} has {size} bytes; at most {limit} are expected there")
        data = self.file.read(size)
        self._pad(size)
        self.told(size)
        return data

    def _header(self, name: str, size: int | None) -> int:
        """The size of the member that is due: a plain file of this name and, where it is known, this size."""
        block = self.file.read(BLOCK)
        if not block.strip(b"\0"):
            raise self._refused(f"it ends before {name}")
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._refused(f"no tar header where {name} is due ({error})") from None
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _KINDS.get(found.type, f"an entry of type {found.type!r}")
            raise self._refused(f"{found.name!r} is {kind}, where the file {name} is due")
        if found.name != name:
            raise self._refused(f"{found.name!r} stands where {name} is due")
        if found.size < 0 or (size is not None and found.size != size):
            raise self._refused(f"{name} is said to have {found.size} bytes; expected {size}")
        if self.file.tell() + found.size > self.size:
            raise self._refused(f"it is cut off in {name}")
        return found.size

    def _hash(self, size: int) -> str:
        hasher = hashlib.sha256()
        while size and (data := self.file.read(min(size, CHUNK))):
            hasher.update(data)
            size -= len(data)
            self.told(len(data))
        return hasher.hexdigest()

    def _pad(self, size: int) -> None:
        if self.file.read(padding(size)).strip(b"\0"):
            raise self._refused("there is something between two members")

    def _end(self) -> None:
        """Two empty blocks; other programs add some more up to a record, never anything else."""
        rest = self.file.read(tarfile.RECORDSIZE + 3 * BLOCK)
        if len(rest) < 2 * BLOCK or len(rest) > tarfile.RECORDSIZE + 2 * BLOCK or rest.strip(b"\0"):
            raise self._refused("it is cut off at its end" if len(rest) < 2 * BLOCK else "something follows its end")

    def _refused(self, reason: str, hint: str | None = None) -> IntegrityError:
        known = "only files as `tlgan artifact export` writes them are read"
        return IntegrityError(f"{self.path} is not imported: {reason}", hint=hint or known)


def _order(key: str) -> tuple[int, str]:
    return (_PARTS.index(key.partition("/")[0]), key)
