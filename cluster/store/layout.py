"""Where things lie in a store (format 1), and the check that a store has this format.

    FORMAT.json                              name and version of the format
    blobs/3f/<sha256>[-<nonce>]              raw bytes, of a file or of a piece of one; the sha256 of the object is its key
    versions/<name>/<UTC>-<digest16>.json    an immutable manifest; writing it is the commit
    aliases/<name>/<alias>.json              the only mutable objects of the format
    leases/<id>.json, <id>.broken            what a push needs while it runs; written by a collector that gave it up
    gc/<UTC>-<id>.json                       keys that a collector condemned and may still delete
    deleted/<name>/<UTC>-<digest16>.json     manifests of deleted versions, for as long as they can be restored
    signatures/<name>/<UTC>-<digest16>.<key>.sig   who vouches for a version; stays until it can't be restored any more

A blob has a nonce when its plain key was condemned as it was pushed: a condemned key is never written again while its
collector may live. A restored version keeps its manifest below `deleted/`, which means nothing while it is back; where
a version's data was taken for good a fence stays in its place. `runs/` belongs to `cluster.runs`, `statistics/` to
`cluster.statistics`; `probe/` holds what a probe of the server could not remove.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.store.base import ObjectInfo, Store
from tlgan.canonical import canonical_json
from tlgan.errors import BackendError, NotFound
from tlgan.manifest import FileEntry, Manifest, Piece

Stored = TypeVar("Stored", FileEntry, Piece)

FORMAT_KEY = "FORMAT.json"
FORMAT_NAME = "tlgan-store"
FORMAT_VERSION = 1

_VERSION = re.compile(
    r"versions/([a-z0-9][a-z0-9._-]{0,99})/((\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{6})Z-([0-9a-f]{16}))\.json",
    re.ASCII,
)


FENCE = canonical_json({"fenced": True})
"""Stands where the manifest of a push that was given up would have gone, so that it can't be committed any more."""


def blob_key(entry: FileEntry | Piece) -> str:
    """Of what is stored as one blob: a file in pieces has as many keys (`FileEntry.blobs`)."""
    return f"blobs/{entry.sha256[:2]}/{entry.sha256}" + (f"-{entry.nonce}" if entry.nonce else "")


def moved(entry: Stored, nonce: str | None) -> Stored:
    """The same file or piece with its bytes at another key."""
    fields = entry.model_dump(exclude={"nonce"}, exclude_unset=True)
    return type(entry).model_validate(fields | ({"nonce": nonce} if nonce else {}))


def lease_key(lease_id: str) -> str:
    return f"leases/{lease_id}.json"


def broken_key(lease_id: str) -> str:
    return f"leases/{lease_id}.broken"


def deleted_key(version_key: str) -> str:
    """Where the manifest of a deleted version goes."""
    return "deleted/" + version_key.removeprefix("versions/")


def signature_prefix(version: Version) -> str:
    """The id of a key and `.sig` follow."""
    return f"signatures/{version.name}/{version.id}."


def alias_key(name: str, alias: str) -> str:
    return f"aliases/{name}/{alias}.json"


@dataclass(frozen=True)
class Version:
    """A published version as its key tells it; `digest` is the first 16 digits of the manifest's."""

    name: str
    id: str
    created: str
    digest: str

    @property
    def key(self) -> str:
        return f"versions/{self.name}/{self.id}.json"

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.digest}"

    @classmethod
    def of(cls, manifest: Manifest) -> Version:
        digest = manifest.digest[:16]
        stamp = re.sub(r"[-:.]", "", manifest.created)
        return cls(manifest.name, f"{stamp}-{digest}", manifest.created, digest)

    @classmethod
    def parse(cls, key: str) -> Version | None:
        """None for a key that is no version."""
        match = _VERSION.fullmatch(key)
        if match is None:
            return None
        name, identity, year, month, day, hour, minute, second, micro, digest = match.groups()
        return cls(name, identity, f"{year}-{month}-{day}T{hour}:{minute}:{second}.{micro}Z", digest)

    @classmethod
    def listed(cls, info: ObjectInfo) -> Version | None:
        """As `parse`, and None for a fence: a listing tells it by its size, which no manifest has."""
        return cls.parse(info.key) if info.size != len(FENCE) else None


def check_format(store: Store) -> bool:
    """True when the store has this format, False when it is new. Raises `BackendError` for another one."""
    try:
        data = store.get(FORMAT_KEY, max_bytes=4096)
    except NotFound:
        return False
    try:
        value: Any = json.loads(data)
        name, version = value["format"], value["version"]
    except (ValueError, KeyError, TypeError):
        raise BackendError(f"{store.url} is no tlgan store: its {FORMAT_KEY} can't be read") from None
    if name != FORMAT_NAME or version != FORMAT_VERSION:
        raise BackendError(
            f"{store.url} has format {name} {version}; this tlgan reads {FORMAT_NAME} {FORMAT_VERSION}",
            hint="use the tlgan that wrote it, or a newer one",
        )
    return True


def format_record() -> bytes:
    return canonical_json({"format": FORMAT_NAME, "version": FORMAT_VERSION})


def write_format(store: Store) -> None:
    store.put_if_absent(FORMAT_KEY, format_record())
