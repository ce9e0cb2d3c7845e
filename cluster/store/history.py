"""Questions about a published artifact: what it was made from, what it weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cluster.store.base import ObjectInfo, Store
from cluster.store.catalog import find_deleted, load, resolve
from cluster.store.layout import deleted_key
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import ArtifactRef, Manifest, Parent

MAX_DEPTH = 100


def resolve_any(store: Store, ref: str | ArtifactRef) -> tuple[Manifest, ObjectInfo | None]:
    """As `resolve`, and a deleted version by its digest: then with what is kept of it."""
    wanted = ref if isinstance(ref, ArtifactRef) else ArtifactRef.parse(ref)
    try:
        return resolve(store, wanted), None
    except NotFound:
        if wanted.digest is None:
            raise
        try:
            version = find_deleted(store, wanted)
        except NotFound:
            kept = None
        else:
            kept = store.head(deleted_key(version.key))
        if kept is None:
            raise
        return load(store, kept.key, wanted.digest, place=version), kept


def lineage(store: Store, manifest: Manifest, deleted: bool = False) -> dict[str, Any]:
    """The tree of ancestors: `ref, name, kind, digest, created, role, parents`.

    A parent that is not in the store has `missing: true` and the reason as `problem`; one that lives outside has
    `external: true`, a deleted one `deleted: true`; one that is already in the tree has `repeated: true` and no parents of its own.
    """
    node = _node(store, manifest, "self", manifest.ref, set(), 0)
    return node | {"deleted": True} if deleted else node


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
    except NotFound as error:
        if deleted := _find_deleted(store, parent):
            return _node(store, deleted, parent.role, parent.ref, seen, depth) | {"deleted": True}
        lost = {"missing": True, "problem": error.message}
    except IntegrityError as error:
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


def parents_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Each after those of the others that it was made from."""
    todo = list(manifests)[::-1]
    known, found = {manifest.digest: manifest for manifest in todo}, dict[str, Manifest]()
    while todo:
        digests = (parent.digest for parent in todo[-1].parents)
        waiting = [known[digest] for digest in digests if digest in known and digest not in found]
        if waiting:
            todo += waiting
        else:
            manifest = todo.pop()
            found.setdefault(manifest.digest, manifest)
    return list(found.values())


def _find_deleted(store: Store, parent: Parent) -> Manifest | None:
    """The manifest of a parent that was deleted: its ancestors are known as long as something descends from it."""
    try:
        ref = ArtifactRef(ArtifactRef.parse(parent.ref).name, digest=parent.digest)
        version = find_deleted(store, ref)
        return load(store, deleted_key(version.key), parent.digest, place=version)
    except (NotFound, IntegrityError):
        return None


def sizes(store: Store, manifest: Manifest) -> dict[str, int]:
    """`logical_bytes`: all files as pulled. `stored_bytes`: each content once, without the `shared_bytes` of ancestors."""
    inherited = {blob.sha256 for ancestor in _ancestors(store, manifest, set()) for blob in ancestor.blobs}
    once = {blob.sha256: blob.size for blob in manifest.blobs}
    shared = sum(size for sha256, size in once.items() if sha256 in inherited)
    return {"logical_bytes": manifest.size, "stored_bytes": sum(once.values()) - shared, "shared_bytes": shared}


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
