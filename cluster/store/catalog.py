"""Finding artifacts: names, versions, references. What is not there is answered with what is near."""

from __future__ import annotations

import hashlib

from cluster.store.aliases import list_aliases, read_alias
from cluster.store.base import Store
from cluster.store.layout import Version
from tlgan.errors import IntegrityError, NotFound, SpecError, did_you_mean
from tlgan.manifest import MAX_MANIFEST_BYTES, Manifest
from tlgan.naming import ArtifactRef, check_name

SHOWN = 10


def list_names(store: Store) -> list[str]:
    """All artifacts that have a version."""
    found = (Version.parse(info.key) for info in store.list("versions/"))
    return sorted({version.name for version in found if version})


def list_versions(store: Store, name: str) -> list[Version]:
    """All versions of an artifact, oldest first; empty when there is no such artifact."""
    found = (Version.parse(info.key) for info in store.list(f"versions/{check_name(name)}/"))
    return sorted((version for version in found if version), key=lambda version: version.id)


def load(store: Store, key: str, digest: str) -> Manifest:
    """The manifest at `key`. `digest` (or a prefix) is checked before anything is parsed."""
    data = store.get(key, max_bytes=MAX_MANIFEST_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(digest):
        raise IntegrityError(f"{key} in {store.url} does not match its digest: expected {digest}, received {found}")
    manifest = Manifest.from_json(data)
    if Version.of(manifest).key != key:
        raise IntegrityError(f"{key} in {store.url} is the manifest of {Version.of(manifest).key}")
    return manifest


def resolve(store: Store, ref: str | ArtifactRef) -> Manifest:
    """The manifest that a reference names. Raises `NotFound` with near names, `SpecError`, `IntegrityError`."""
    wanted = ref if isinstance(ref, ArtifactRef) else ArtifactRef.parse(ref)
    if wanted.alias is not None:
        found = read_alias(store, wanted.name, wanted.alias)
        if found is None:
            raise _missing(store, wanted)
        version, digest = Version.parse(f"versions/{wanted.name}/{found[0].version}.json"), found[0].digest
        if version is None or version.digest != digest[:16]:
            raise IntegrityError(f"alias {wanted} in {store.url} names an impossible version {found[0].version!r}")
    else:
        digest = wanted.digest or ""
        version = _by_digest(store, wanted, digest)
    try:
        return load(store, version.key, digest)
    except NotFound:
        hint = "it was removed; move the alias to another version"
        raise NotFound(f"{wanted} points at {version.ref}, which is not in {store.url}", hint=hint) from None


def _by_digest(store: Store, wanted: ArtifactRef, digest: str) -> Version:
    versions = list_versions(store, wanted.name)
    found = [version for version in versions if version.digest.startswith(digest[:16])]
    if not found:
        raise _missing(store, wanted, versions)
    if len(found) > 1:
        raise SpecError(
            f"{wanted} fits {len(found)} versions: {', '.join(version.ref for version in found[:SHOWN])}",
            hint="give more digits",
        )
    return found[0]


def _missing(store: Store, wanted: ArtifactRef, versions: list[Version] | None = None) -> NotFound:
    head = f'artifact "{wanted}" does not exist in {store.url}'
    versions = list_versions(store, wanted.name) if versions is None else versions
    if not versions:
        names = list_names(store)
        near = did_you_mean(wanted.name, names)
        return NotFound(
            f'{head}: there is no artifact "{wanted.name}"' + (f"; {near}" if near else ""),
            hint=f"artifacts there: {_some(names)}" if names else "the store is empty; is it the right one?",
        )
    latest = f"newest version: {versions[-1].ref}"
    aliases = sorted(list_aliases(store, wanted.name))
    if wanted.alias is None:
        return NotFound(f"{head}: no version starts with {wanted.digest}", hint=latest)
    near = did_you_mean(wanted.alias, aliases)
    return NotFound(
        f'{head}: {wanted.name} has no alias "{wanted.alias}"' + (f"; {near}" if near else ""),
        hint=f"aliases of {wanted.name}: {_some(aliases) or 'none'}; {latest}",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
