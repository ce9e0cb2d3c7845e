"""Where things lie in a store (format 1), and the check that a store has this format.

    FORMAT.json                              name and version of the format
    blobs/3f/<sha256>                        raw bytes; the sha256 of the object is its key
    versions/<name>/<UTC>-<digest16>.json    an immutable manifest; writing it is the commit
    aliases/<name>/<alias>.json              the only mutable objects of the format

`leases/`, `gc/`, `deleted/` and `runs/` are set aside; `probe/` holds what a probe of the server could not remove.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from cluster.store.base import Store
from tlgan.errors import BackendError, NotFound
from tlgan.manifest import Manifest
from tlgan.recipe import canonical_json

FORMAT_KEY = "FORMAT.json"
FORMAT_NAME = "tlgan-store"
FORMAT_VERSION = 1

_VERSION = re.compile(r"versions/([^/]+)/((\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{6})Z-([0-9a-f]{16}))\.json")


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


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


def write_format(store: Store) -> None:
    store.put_if_absent(FORMAT_KEY, canonical_json({"format": FORMAT_NAME, "version": FORMAT_VERSION}))
