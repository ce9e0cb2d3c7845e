"""Finding artifacts: names, versions, references. What is not there is answered with what is near."""

from __future__ import annotations

import hashlib

from cluster.store.aliases import list_aliases, read_alias
from cluster.store.base import Store
from cluster.store.layout import FENCE, Version, deleted_key
from tlgan.errors import IntegrityError, NotFound, SpecError, did_you_mean
from tlgan.manifest import MAX_MANIFEST_BYTES, Manifest
from tlgan.naming import ArtifactRef, check_name

SHOWN = 10


def list_names(store: Store) -> list[str]:
    """All artifacts that have a version, and those whose only push was given up."""
    return sorted(name for name in store.folders("versions/") if _is_name(name))


def _is_name(text: str) -> bool:
    try:
        return check_name(text) == text
    except SpecError:
        return False


def list_versions(store: Store, name: str) -> list[Version]:
    """All versions of an artifact, oldest first; empty when there is no such artifact."""
    found = (Version.listed(info) for info in store.list(f"versions/{check_name(name)}/"))
    return sorted((version for version in found if version), key=lambda version: version.id)


def load(store: Store, key: str, digest: str, place: Version | None = None) -> Manifest:
    """The manifest at `key`, which is that of `place` or has its own place. `digest` (or a prefix) is checked first."""
    data = store.get(key, max_bytes=MAX_MANIFEST_BYTES)
    if data == FENCE:
        raise NotFound(f"{key} in {store.url} was given up before it was published")
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(digest):
        raise IntegrityError(f"{key} in {store.url} does not match its digest: expected {digest}, received {found}")
    manifest = Manifest.from_json(data)
    if Version.of(manifest).key != (place.key if place else key):
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
        version = _by_digest(store, wanted)
    try:
        return load(store, version.key, digest)
    except NotFound:
        if store.head(deleted_key(version.key)) is not None:
            hint = f"it was deleted; `tlgan artifact restore {version.ref}` brings it back"
        else:
            hint = "it was removed; move the alias to another version"
        raise NotFound(f"{wanted} points at {version.ref}, which is not in {store.url}", hint=hint) from None


def _by_digest(store: Store, wanted: ArtifactRef) -> Version:
    versions = list_versions(store, wanted.name)
    found = [version for version in versions if _fits(version, wanted)]
    if not found:
        raise _missing(store, wanted, versions)
    if len(found) > 1:
        raise _ambiguous(wanted, found)
    return found[0]


def deleted_versions(store: Store, name: str | None = None) -> list[Version]:
    """Deleted versions whose manifest is still there, oldest first; not those that were restored."""
    below = f"{name}/" if name else ""
    parsed = (Version.parse("versions/" + info.key.removeprefix("deleted/")) for info in store.list(f"deleted/{below}"))
    found = {version for version in parsed if version}
    if found:
        found -= {version for info in store.list(f"versions/{below}") if (version := Version.listed(info))}
    return sorted(found, key=lambda version: (version.name, version.id))


def find_deleted(store: Store, ref: ArtifactRef) -> Version:
    """The deleted version that `name@digest` names. Raises `NotFound`, `SpecError` when it fits several."""
    versions = deleted_versions(store, ref.name)
    found = [version for version in versions if ref.digest and _fits(version, ref)]
    if not found:
        known = _some([version.ref for version in versions[::-1]]) or "none"
        raise NotFound(f"{ref} is no deleted version in {store.url}", hint=f"deleted versions of {ref.name}: {known}")
    if len(found) > 1:
        raise _ambiguous(ref, found)
    return found[0]


def _fits(version: Version, ref: ArtifactRef) -> bool:
    return version.digest.startswith((ref.digest or "")[:16])


def _ambiguous(wanted: ArtifactRef, found: list[Version]) -> SpecError:
    fitting = ", ".join(version.ref for version in found[:SHOWN])
    return SpecError(f"{wanted} fits {len(found)} versions: {fitting}", hint="give more digits")


def _missing(store: Store, wanted: ArtifactRef, versions: list[Version] | None = None) -> NotFound:
    head = f'artifact "{wanted}" does not exist in {store.url}'
    versions = list_versions(store, wanted.name) if versions is None else versions
    deleted = deleted_versions(store, wanted.name)
    if gone := [version for version in deleted if wanted.digest and _fits(version, wanted)]:
        return NotFound(f"{head}: it was deleted", hint=f"`tlgan artifact restore {gone[0].ref}` brings it back")
    if not versions and deleted:
        hint = f"`tlgan artifact ls {wanted.name} --deleted` lists them; restore {deleted[-1].ref}, say"
        return NotFound(f"{head}: all versions of {wanted.name} were deleted", hint=hint)
    if not versions:
        names = list_names(store)
        near = did_you_mean(wanted.name, names)
        return NotFound(
            f'{head}: there is no artifact "{wanted.name}"' + (f"; {near}" if near else ""),
            hint=f"artifacts there: {_some(names)}" if names else "the store is empty; is it the right one?",
        )
    latest = f"newest version: {versions[-1].ref}"
    if wanted.alias is None:
        return NotFound(f"{head}: no version starts with {wanted.digest}", hint=latest)
    aliases = sorted(list_aliases(store, wanted.name))
    near = did_you_mean(wanted.alias, aliases)
    return NotFound(
        f'{head}: {wanted.name} has no alias "{wanted.alias}"' + (f"; {near}" if near else ""),
        hint=f"aliases of {wanted.name}: {_some(aliases) or 'none'}; {latest}",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
