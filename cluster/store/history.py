"""Questions about a published artifact: what it was made from, whether it is whole, what it weighs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cluster.store.base import Store
from cluster.store.catalog import resolve
from cluster.store.layout import blob_key
from cluster.store.transfer import in_parallel
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import ArtifactRef, FileEntry, Manifest, Parent

MAX_DEPTH = 100
RANGE = 8 << 20


@dataclass(frozen=True)
class VerifyReport:
    """`problems` is empty when the artifact is whole. `full`: the bytes were hashed, not only their size seen."""

    ref: str
    digest: str
    files: int
    bytes: int
    full: bool
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def check(self) -> None:
        """Raises `IntegrityError` with every problem."""
        if self.problems:
            raise IntegrityError(f"{self.ref} is damaged: {'; '.join(self.problems)}")


def lineage(store: Store, manifest: Manifest) -> dict[str, Any]:
    """The tree of ancestors: `ref, name, kind, digest, created, role, parents`.

    A parent that is not in the store has `missing: true` and the reason as `problem`; one that lives outside has
    `external: true`; one that is already in the tree has `repeated: true` and no parents of its own.
    """
    return _node(store, manifest, "self", manifest.ref, set(), 0)


def _node(store: Store, manifest: Manifest, role: str, asked: str, seen: set[str], depth: int) -> dict[str, Any]:
    facts = {"name": manifest.name, "kind": manifest.kind, "digest": manifest.digest, "created": manifest.created}
    node: dict[str, Any] = {"ref": manifest.ref, "asked": asked, "role": role, **facts, "parents": []}
    if manifest.digest in seen or depth >= MAX_DEPTH:
        return node | {"repeated": True}
    seen.add(manifest.digest)
    node["parents"] = [_parent(store, parent, seen, depth + 1) for parent in manifest.parents]
    return node


def _parent(store: Store, parent: Parent, seen: set[str], depth: int) -> dict[str, Any]:
    try:
        if not parent.external:
            return _node(store, find_parent(store, parent), parent.role, parent.ref, seen, depth)
        lost: dict[str, Any] = {"external": True}
    except (NotFound, IntegrityError) as error:
        lost = {"missing": True, "problem": error.message}
    name = None if parent.external else ArtifactRef.parse(parent.ref).name
    return {
        "ref": parent.ref if parent.external else f"{name}@{parent.digest[:16]}",
        "asked": parent.ref,
        "role": parent.role,
        "name": name,
        "digest": parent.digest,
        "parents": [],
        **lost,
    }


def find_parent(store: Store, parent: Parent) -> Manifest:
    """The parent's manifest, by digest. Raises `NotFound`, `IntegrityError`."""
    return resolve(store, ArtifactRef(ArtifactRef.parse(parent.ref).name, digest=parent.digest))


def verify(store: Store, manifest: Manifest, full: bool, threads: int) -> VerifyReport:
    """Every blob is there with its size; with `full`, every byte is read and hashed."""
    once = {entry.sha256: entry for entry in manifest.files}
    found = in_parallel(lambda entry: _check_blob(store, entry, full), once.values(), threads)
    problems = [problem for problem in found if problem]
    return VerifyReport(manifest.ref, manifest.digest, len(manifest.files), manifest.size, full, problems)


def _check_blob(store: Store, entry: FileEntry, full: bool) -> str | None:
    key = blob_key(entry.sha256)
    info = store.head(key)
    if info is None:
        return f"{entry.path}: {key} is missing"
    if info.size != entry.size:
        return f"{entry.path}: {key} has {info.size} bytes, expected {entry.size}"
    if full and (found := _hash_blob(store, key, entry.size)) != entry.sha256:
        return f"{entry.path}: {key} does not match its digest, received {found}"
    return None


def _hash_blob(store: Store, key: str, size: int) -> str:
    """sha256 of what is stored, read in ranges: needs no room on disk."""
    hasher = hashlib.sha256()
    for start in range(0, size, RANGE):
        hasher.update(store.get_range(key, start, min(start + RANGE, size)))
    return hasher.hexdigest()


def sizes(store: Store, manifest: Manifest) -> dict[str, int]:
    """`logical_bytes`: all files as pulled. `stored_bytes`: each content once, without what ancestors already had."""
    inherited = {entry.sha256 for ancestor in _ancestors(store, manifest, set()) for entry in ancestor.files}
    own = {entry.sha256: entry.size for entry in manifest.files if entry.sha256 not in inherited}
    return {"logical_bytes": manifest.size, "stored_bytes": sum(own.values())}


def _ancestors(store: Store, manifest: Manifest, seen: set[str]) -> Iterator[Manifest]:
    for parent in manifest.parents:
        if parent.external or parent.digest in seen or len(seen) >= MAX_DEPTH:
            continue
        seen.add(parent.digest)
        try:
            ancestor = find_parent(store, parent)
        except (NotFound, IntegrityError):
            continue
        yield ancestor
        yield from _ancestors(store, ancestor, seen)
