"""Copying artifacts from store to store: only what is missing there is sent, verified on both ways, by the protocol of a push.

The manifest goes over as it is, so the copy has the digest of the original. Only where a collector of the other store has
condemned one of the keys does the copy get other keys, and with them another digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.store import publish as publishing
from cluster.store.aliases import move_alias
from cluster.store.history import find_parent, parents_first
from cluster.store.layout import Version, blob_key, check_format, write_format
from cluster.store.moving import Carrier, Fetch, workroom
from cluster.store.protocol import ArtifactStore
from cluster.store.signing import copy_signatures
from tlgan.errors import IntegrityError, NotFound, SpecError
from tlgan.manifest import FileEntry, Manifest
from tlgan.naming import ArtifactRef, check_name


@dataclass(frozen=True)
class Family:
    """Artifacts to be taken elsewhere, parents first. `asked`: digests of those that were named; `lost`: what can't come."""

    manifests: list[Manifest]
    asked: set[str]
    lost: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of the blobs of each."""
        blobs = [{blob_key(blob): blob.size for blob in manifest.blobs} for manifest in self.manifests]
        return sum(sum(sizes.values()) for sizes in blobs)


@dataclass(frozen=True)
class Placed:
    """One artifact in its new place. `source`: what it was there, which differs where other keys were needed."""

    manifest: Manifest
    source: Manifest
    uploaded: int
    reused: int
    aliases: list[str]

    @property
    def same(self) -> bool:
        return self.manifest.digest == self.source.digest


def family(store: ArtifactStore, refs: Iterable[str], with_parents: bool) -> Family:
    """What the references name, each once. Raises as `ArtifactStore.resolve`."""
    asked = {manifest.digest: manifest for manifest in map(store.resolve, refs)}
    found, lost, todo = dict(asked), dict[str, str](), list(asked.values())
    while todo and with_parents:
        manifest = todo.pop()
        for parent in manifest.parents:
            if parent.external or parent.digest in found or parent.digest in lost:
                continue
            try:
                found[parent.digest] = find_parent(store.store, parent)
                todo.append(found[parent.digest])
            except (NotFound, IntegrityError) as error:
                name = ArtifactRef.parse(parent.ref).name
                lost[parent.digest] = f"{name}@{parent.digest[:16]}, a parent of {manifest.ref}: {error.message}"
    return Family(parents_first(found.values()), set(asked), list(lost.values()))


def check_aliases(manifests: Iterable[Manifest], aliases: Iterable[str]) -> list[str]:
    """The aliases, each once. Raises `SpecError` when one of them would have to point at two versions."""
    names = [manifest.name for manifest in manifests]
    wanted = list(dict.fromkeys(check_name(alias, "alias") for alias in aliases))
    twice = sorted({name for name in names if names.count(name) > 1})
    if wanted and twice:
        hint = "move the alias afterwards: tlgan artifact alias NAME ALIAS DIGEST"
        raise SpecError(f"{twice[0]}:{wanted[0]} can't point at two versions of {twice[0]}", hint=hint)
    return wanted


def place(target: ArtifactStore, source: Manifest, fetch: Fetch, aliases: Iterable[str] = ()) -> Placed:
    """Publishes a manifest that exists elsewhere. `fetch` brings its blobs; those that `target` has are not asked for.

    What a call that failed has sent stays, and is not sent again. Raises `IntegrityError` where the version is there but damaged.
    """
    store, aliases = target.store, list(aliases)
    if not check_format(store):
        write_format(store)
    before = (target.stats.uploaded, target.stats.reused)

    def finish(published: Manifest) -> None:
        for alias in aliases:
            move_alias(store, alias, Version.of(published), published.digest)

    origins = {blob.sha256: blob for blob in source.blobs}  # the copy may lie at other keys

    def bring(entry: FileEntry, dest: Path) -> None:
        fetch(origins[entry.sha256], dest)

    with workroom(target.cache_dir) as room:
        carrier = Carrier(store, bring, target.stats, target.threads, room)
        manifest = publishing.publish(store, source, carrier, finish)
    sent, reused = target.stats.uploaded - before[0], target.stats.reused - before[1]
    return Placed(manifest, source, sent, reused, aliases)


def copy(source: ArtifactStore, target: ArtifactStore, manifest: Manifest, aliases: Iterable[str] = ()) -> Placed:
    """One artifact of `source` into `target`, with the same digest where `target` allows it."""

    def fetch(entry: FileEntry, dest: Path) -> None:
        source.store.download(blob_key(entry), dest, sha256=entry.sha256, size=entry.size)

    placed = place(target, manifest, fetch, aliases)
    if placed.same:  # another digest would need signatures of its own
        copy_signatures(source.store, target.store, Version.of(manifest))
    return placed
