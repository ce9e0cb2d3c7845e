"""Publishing: the order of steps that keeps pushes and collectors out of each other's way.

    lease -> condemned lists -> blobs -> manifest (the commit) -> aliases -> own lease -> drop the lease

A key that is condemned is not used: the content gets a fresh key, and a new lease names it. A push that slept until its
lease was broken finds a fence in the place of its manifest, or else sees at the end that the lease is gone, and starts
again. Where a server can't create a key once a fence holds nobody, so the lease is looked at before the aliases, too.
`tests/faults/test_store_model.py` walks through every interleaving of this with a collector.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from cluster.store import leases
from cluster.store.base import Store
from cluster.store.claim import Claim, Guard, free
from cluster.store.condemned import condemned_keys
from cluster.store.layout import FENCE, Stored, Version, blob_key, moved
from cluster.store.transfer import Placer
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound
from tlgan.manifest import FileEntry, Manifest, blobs_of, now_utc

ATTEMPTS = 5


def publish(
    store: Store,
    manifest: Manifest,
    placer: Placer,
    finish: Callable[[Manifest], None],
    guard: Guard = free,
    claim: Claim | None = None,
) -> Manifest:
    """Commits `manifest`, or its like with other keys or a later time, and calls `finish` under the lease.

    `finish` is called again when the lease ran out meanwhile.
    `guard` raises when this process may not publish any more; it is asked before the commit and before `finish`. `claim`
    says for whom it publishes, so that a later attempt of the same run can stop it between the two.
    """
    for _ in range(ATTEMPTS):
        version = Version.of(manifest)
        with leases.hold(store, map(blob_key, manifest.blobs), version.key, claim=claim) as lease:
            condemned = condemned_keys(store)
            if version.key in condemned or not condemned.isdisjoint(map(blob_key, manifest.blobs)):
                files = elsewhere(store, manifest.files, condemned, lease.nonce)
                manifest = manifest.model_copy(update={"files": files, "created": now_utc()})
                continue
            placer.place(manifest.blobs)
            guard()
            if not commit(store, version, manifest):
                manifest = manifest.model_copy(update={"created": now_utc()})
                continue
            if store.capabilities.create_only or lease.valid():
                guard()
                finish(manifest)
                if lease.valid():  # otherwise the version may have been deleted before an alias pointed at it
                    return manifest
    raise BackendError(
        f"{manifest.name} could not be published in {store.url}: {ATTEMPTS} times the lease ran out before the end",
        hint="is this machine very slow, or its connection?",
    )


def stage(store: Store, entries: Sequence[FileEntry], placer: Placer, pin: str) -> list[FileEntry]:
    """Places blobs that a later `publish` will name, protected by the pin of that name; returns their entries."""
    reserved = reserve(store, entries, lambda keys: leases.pin(store, pin, keys))
    placer.place(blobs_of(reserved))
    return reserved


def reserve(store: Store, entries: Sequence[FileEntry], protect: Callable[[Iterable[str]], None]) -> list[FileEntry]:
    """The entries at keys that `protect` protects and no collector may delete: from here on they can be counted on."""
    for _ in range(ATTEMPTS):
        keys = [blob_key(blob) for blob in blobs_of(entries)]
        protect(keys)
        condemned = condemned_keys(store)
        if condemned.isdisjoint(keys):
            return list(entries)
        entries = elsewhere(store, entries, condemned, uuid.uuid4().hex[:16])
    raise BackendError(
        f"{entries[0].path} could not be stored in {store.url}: its keys were condemned {ATTEMPTS} times",
        hint="`tlgan artifact gc` lists collections that never ended",
    )


def protected_move(store: Store, version: Version, move: Callable[[], None]) -> None:
    """Runs `move`, which points something at a published version, so that no collector takes the version away."""
    for _ in range(ATTEMPTS):
        with leases.hold(store, [version.key]) as lease:
            if version.key in condemned_keys(store):
                hint = "publish it again, or `tlgan artifact gc` lists collections that never ended"
                raise Conflict(f"{version.ref} is being collected in {store.url}", hint=hint)
            if store.head(version.key) is None:
                raise NotFound(f"{version.ref} is not in {store.url} any more")
            move()
            if lease.valid():
                return
    raise BackendError(f"{store.url}: the lease on {version.ref} ran out {ATTEMPTS} times")


def elsewhere(store: Store, entries: Iterable[FileEntry], condemned: set[str], nonce: str) -> list[FileEntry]:
    """The entries with condemned keys replaced: by another copy that the store has, or by a fresh key."""
    places: Mapping[str, str | None] = {
        blob.sha256: _copy_of(store, blob, condemned, nonce)
        for blob in blobs_of(entries)
        if blob_key(blob) in condemned
    }

    def at(one: Stored) -> Stored:
        return moved(one, places[one.sha256]) if one.sha256 in places else one

    return [
        entry.model_copy(update={"pieces": [at(piece) for piece in entry.pieces]}) if entry.pieces else at(entry)
        for entry in entries
    ]


def _copy_of(store: Store, entry: FileEntry, condemned: set[str], nonce: str) -> str | None:
    first = blob_key(moved(entry, None))
    for info in store.list(first):
        if info.key not in condemned and info.size == entry.size:
            return info.key.removeprefix(first).removeprefix("-") or None
    return nonce if first in condemned else None


def commit(store: Store, version: Version, manifest: Manifest) -> bool:
    """False when a collector gave this version up. Committing what is there already is no error."""
    data = manifest.to_json()
    if store.put_if_absent(version.key, data):
        return True
    try:
        found = store.get(version.key, max_bytes=len(data) + 1)
    except NotFound:  # somebody deleted it meanwhile
        return False
    if found == FENCE:
        return False
    if found != data:
        raise IntegrityError(f"{version.key} in {store.url} is damaged: it is not what its name says")
    return True
