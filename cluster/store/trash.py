"""Deleting versions by hand, and bringing deleted ones back."""

from __future__ import annotations

import contextlib

from cluster.store import leases
from cluster.store.aliases import list_aliases
from cluster.store.base import Store
from cluster.store.catalog import load
from cluster.store.condemned import Condemned, condemn, condemned_keys
from cluster.store.gc import delete_version
from cluster.store.layout import Version, blob_key, deleted_key
from cluster.store.publish import commit, publish
from cluster.store.transfer import Placer, TransferStats, in_parallel
from tlgan.errors import BackendError, Conflict, NotFound
from tlgan.manifest import Manifest, now_utc


def remove(store: Store, version: Version) -> None:
    """Deletes a version that no alias points at. It can be restored until a collection takes its blobs.

    Raises `Conflict` while an alias or a push needs it, `NotFound`.
    """
    condemned = condemn(store, [version.key])
    try:
        _refuse_if_needed(store, version, condemned)
        if deleted_key(version.key) in condemned_keys(store):
            raise Conflict(
                f"an earlier deletion of {version.ref} is being collected", hint="try again when it has ended"
            )
    except BaseException:  # nothing was deleted yet
        with contextlib.suppress(BackendError):
            store.delete(condemned.key)
        raise
    there = delete_version(store, version)
    store.delete(condemned.key)
    if not there:
        raise NotFound(f"{version.ref} is not in {store.url}")


def _refuse_if_needed(store: Store, version: Version, condemned: Condemned) -> None:
    written = store.head(condemned.key)
    for lease, info in leases.read_leases(store):
        if version.key in lease.protected:
            if written and leases.expired(lease, info, written.modified):
                leases.break_lease(
                    store, lease
                )  # not now: its holder may have been told a moment ago that it is published
                hint = "its lease is broken now; delete it again"
                raise Conflict(
                    f"{version.ref} was being published by {lease.holder}, which never told that it ended", hint=hint
                )
            raise Conflict(f"{version.ref} is being published or pointed at by {lease.holder}")
    pointing = [name for name, alias in list_aliases(store, version.name).items() if alias.version == version.id]
    if pointing:
        hint = f"move it first: tlgan artifact alias {version.name} {pointing[0]} OTHER, or --remove"
        raise Conflict(f"{version.ref} has the alias {', '.join(sorted(pointing))}", hint=hint)


def restore(store: Store, version: Version, threads: int = 8) -> Manifest:
    """Brings a deleted version back; returns its manifest. Raises `NotFound` when a collection took some of its blobs.

    Its tombstone stays: it means nothing while the version is there, and taking it away late could undo a later deletion.
    A version whose place a collector fenced comes back with the same content under another digest.
    """
    key = deleted_key(version.key)
    manifest = load(store, key, version.digest, place=version)
    blobs = {blob_key(blob): blob for blob in manifest.blobs}
    with leases.hold(store, [*blobs, version.key, key]) as lease:
        if not condemned_keys(store).isdisjoint([*blobs, version.key, key]):
            raise Conflict(f"{version.ref} is being collected in {store.url}", hint="try again when it has ended")
        infos = in_parallel(store.head, blobs, threads)
        gone = [
            entry.path for info, entry in zip(infos, blobs.values(), strict=True) if not info or info.size != entry.size
        ]
        if gone:
            raise NotFound(
                f"{version.ref} can't be restored: {len(gone)} of its files were collected, {gone[0]} for one"
            )
        back = commit(store, version, manifest)
        if back and not lease.valid():
            raise BackendError(f"{version.ref}: the lease ran out on the way", hint="try again")
    if back:
        return manifest
    manifest = manifest.model_copy(update={"created": now_utc()})
    return publish(store, manifest, Placer(store, TransferStats(), threads), finish=lambda published: None)
