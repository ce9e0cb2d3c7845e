"""The collector: deletes what nothing needs, while pushes go on.

    condemned list -> leases -> aliases and versions -> delete          (in this order only; see `publish.py`)

What a lease, an alias, a version or a restorable deletion names after the condemned list was written stays, and what the
caller says is needed besides. A push that leases later reads the list, and takes fresh keys. A version is deleted by moving
its manifest below `deleted/`; its blobs go when it can't be restored any more, its manifest when no version descends from it.
Before either goes, the version's place is fenced: somebody who slept since it was there could commit it again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cluster.store import leases
from cluster.store.aliases import list_aliases
from cluster.store.base import ObjectInfo, Store
from cluster.store.catalog import load
from cluster.store.condemned import Condemned, condemn, condemned_lists
from cluster.store.layout import FENCE, Version, blob_key, deleted_key
from cluster.store.retention import Policy, doomed
from cluster.store.signing import drop_signatures
from cluster.store.transfer import in_parallel
from tlgan.errors import BackendError, IntegrityError, NotFound
from tlgan.manifest import Manifest

THREADS = 8
HELD = "in use by a push that is under way"
RESTORABLE = "of deleted versions that can be restored"
YOUNG = "younger than the grace time"


@dataclass(frozen=True)
class Snapshot:
    """What is in a store: live versions, deleted ones that were not restored, blobs, and what leases and aliases hold."""

    versions: dict[Version, Manifest]
    deleted: dict[ObjectInfo, Manifest]
    blobs: list[ObjectInfo]
    held: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """What a collection would do. `kept`: version key -> why the rules spare it.

    `waiting`: blobs that no living version needs and that stay for now, by the reason. `sizes`: version key -> bytes of
    its files, for the versions that go.
    """

    versions: list[Version]
    tombstones: list[ObjectInfo]
    blobs: list[ObjectInfo]
    kept: dict[str, str]
    live: int
    waiting: dict[str, list[ObjectInfo]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(info.size for info in self.blobs)

    @property
    def keys(self) -> list[str]:
        return sorted(
            [version.key for version in self.versions] + [info.key for info in [*self.tombstones, *self.blobs]]
        )


@dataclass
class Collected:
    """What a collection did: keys by kind, bytes of the blobs, and leases it broke."""

    versions: list[str] = field(default_factory=list)
    tombstones: list[str] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)
    bytes: int = 0
    spared: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Collector:
    """One collection. `plan` only reads; `run` carries a plan out.

    `needed` tells what else is in use (asked by both): digest of a manifest -> why.
    """

    def __init__(
        self, store: Store, policy: Policy, threads: int = THREADS, needed: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.store, self.policy, self.threads, self.needed = store, policy, threads, needed

    def plan(self, now: datetime | None = None) -> Plan:
        """Raises `IntegrityError` when a manifest can't be read: what it needs is unknown, so nothing may go."""
        now = now or datetime.now(UTC)
        seen = self._look(now)
        going, kept = doomed(self.policy, seen.versions, seen.held, now)
        doomed_now, waiting = set(going), self._waiting(seen, now)
        living = [manifest for version, manifest in seen.versions.items() if version not in doomed_now]
        ancestors = _ancestors(living, [*seen.versions.values(), *seen.deleted.values()])
        gone = [i for i, manifest in seen.deleted.items() if i not in waiting and manifest.digest not in ancestors]
        needed = {key for manifest in living for key in _keys(manifest)}
        restorable = {key for manifest in waiting.values() for key in _keys(manifest)}
        if self.policy.restorable:  # they can be restored from now on
            restorable |= {key for version in going for key in _keys(seen.versions[version])}
        reasons: dict[str | None, list[ObjectInfo]] = {}
        for info in seen.blobs:
            if info.key not in needed:
                young = now - info.modified <= self.policy.grace
                reason = HELD if info.key in seen.held else RESTORABLE if info.key in restorable else YOUNG
                reasons.setdefault(reason if reason != YOUNG or young else None, []).append(info)
        blobs = reasons.pop(None, [])
        sizes = {version.key: seen.versions[version].size for version in going}
        return Plan(going, gone, blobs, kept, len(living), {str(why): infos for why, infos in reasons.items()}, sizes)

    def _waiting(self, seen: Snapshot, now: datetime) -> dict[ObjectInfo, Manifest]:
        """Deleted versions that can still be restored."""
        return {
            info: manifest for info, manifest in seen.deleted.items() if now - info.modified <= self.policy.restorable
        }

    def run(self, plan: Plan, told: Callable[[int], None] = lambda size: None) -> Collected:
        """Deletes what of the plan is still free. `told` hears the bytes of every blob that went."""
        done = Collected()
        if not plan.keys:
            return done
        condemned = condemn(self.store, plan.keys)
        try:
            protected, dying = self._protected(condemned, plan, done)
        except BaseException:  # nothing was deleted yet
            with contextlib.suppress(BackendError):
                self.store.delete(condemned.key)
            raise
        self._delete(plan, protected, dying, done, told)
        self.store.delete(condemned.key)
        return done

    def _look(self, now: datetime) -> Snapshot:
        """Blobs first: one that is pushed meanwhile is not in the list."""
        blobs = list(self.store.list("blobs/"))
        living = [lease for lease, info in leases.read_leases(self.store) if not leases.expired(lease, info, now)]
        held = {key: f"in use by {lease.holder}" for lease in living for key in lease.protected}
        held |= {key: f"alias {', '.join(aliases)}" for key, aliases in self._aliased().items()}
        versions, needed = self._versions(), self.needed() if self.policy.deletes_versions else {}
        held |= {v.key: why for v, manifest in versions.items() if (why := needed.get(manifest.digest))}
        deleted = {info: old for info, old in self._deleted().items() if Version.of(old) not in versions}
        return Snapshot(versions, deleted, blobs, held)

    def _protected(self, condemned: Condemned, plan: Plan, done: Collected) -> tuple[set[str], dict[str, set[str]]]:
        """What must stay although it is condemned, and blobs by the key of the dying version that named them.

        The order is the protocol.
        """
        written = self.store.head(condemned.key)
        if written is None:
            raise IntegrityError(f"{condemned.key} is gone from {self.store.url} while its collection runs")
        others = {key for one in condemned_lists(self.store) if one.id != condemned.id for key in one.keys}
        going = {version.key for version in plan.versions}
        protected = {key for key in going if deleted_key(key) in others}
        for lease, info in leases.read_leases(self.store):
            if leases.expired(lease, info, written.modified):
                leases.break_lease(self.store, lease)
                done.broken.append(lease.id)
                protected |= lease.protected & going  # its holder may have been told a moment ago that it is published
            else:
                protected |= lease.protected
        protected |= self._aliased().keys()
        dying: dict[str, set[str]] = {}
        needed = self.needed() if going else {}
        for version, manifest in self._versions().items():
            protected.add(deleted_key(version.key))
            if manifest.digest in needed:
                protected.add(version.key)
            if version.key not in going - protected or self.policy.restorable:
                protected |= _keys(manifest)
            else:
                dying[version.key] = _keys(manifest)
        for info, manifest in self._deleted().items():
            if self.policy.restorable and written.modified - info.modified <= self.policy.restorable:
                protected |= {info.key, *_keys(manifest)}
            else:
                dying[Version.of(manifest).key] = _keys(manifest)
        return protected, dying

    def _delete(
        self,
        plan: Plan,
        protected: set[str],
        dying: dict[str, set[str]],
        done: Collected,
        told: Callable[[int], None],
    ) -> None:
        for version in plan.versions:
            if version.key not in protected and delete_version(self.store, version):
                done.versions.append(version.ref)
        condemned = {*plan.keys}
        for key, blobs in dying.items():
            taken = {deleted_key(key), *blobs} & condemned - protected
            if taken and not leases.fence(self.store, key):  # it came back
                protected |= {deleted_key(key), *blobs}
        done.spared = sorted(protected & condemned)

        def remove(info: ObjectInfo) -> None:
            self.store.delete(info.key)
            told(info.size)

        free = [info for info in plan.blobs if info.key not in protected]
        in_parallel(remove, free, self.threads)
        done.blobs, done.bytes = [info.key for info in free], sum(info.size for info in free)
        for info in plan.tombstones:
            if info.key not in protected:
                known = Version.parse("versions/" + info.key.removeprefix("deleted/"))
                if known and not self._is_live(known):  # a restored version leaves its tombstone behind
                    drop_signatures(self.store, known)
                self.store.delete(info.key)
                done.tombstones.append(info.key)

    def _is_live(self, version: Version) -> bool:
        found = self.store.head(version.key)
        return found is not None and Version.listed(found) is not None

    def _aliased(self) -> dict[str, list[str]]:
        """Version key -> the aliases that point at it."""
        found: dict[str, list[str]] = {}
        for name in self.store.folders("aliases/"):
            for alias, record in list_aliases(self.store, name).items():
                found.setdefault(f"versions/{name}/{record.version}.json", []).append(alias)
        return found

    def _versions(self) -> dict[Version, Manifest]:
        infos = list(self.store.list("versions/"))
        for info in infos:  # a manifest cut to just the size of a fence is none
            if Version.parse(info.key) and not Version.listed(info) and self._content(info.key) not in (FENCE, None):
                raise IntegrityError(f"nothing is collected: {info.key} in {self.store.url} is damaged")
        found = [version for info in infos if (version := Version.listed(info))]
        manifests = in_parallel(lambda version: self._load(version.key, version), found, self.threads)
        return {version: manifest for version, manifest in zip(found, manifests, strict=True) if manifest}

    def _deleted(self) -> dict[ObjectInfo, Manifest]:
        found: list[tuple[ObjectInfo, Version]] = []
        for info in self.store.list("deleted/"):
            if version := Version.parse("versions/" + info.key.removeprefix("deleted/")):
                found.append((info, version))
        manifests = in_parallel(lambda pair: self._load(pair[0].key, pair[1]), found, self.threads)
        return {info: manifest for (info, _), manifest in zip(found, manifests, strict=True) if manifest}

    def _content(self, key: str) -> bytes | None:
        try:
            return self.store.get(key, max_bytes=len(FENCE))
        except NotFound:
            return None

    def _load(self, key: str, version: Version) -> Manifest | None:
        try:
            return load(self.store, key, version.digest, place=version)
        except NotFound:  # gone since it was listed
            return None
        except IntegrityError as error:
            hint = (
                f"restore it from another store (`tlgan artifact verify {version.ref} --repair`), or delete that object"
            )
            raise IntegrityError(f"nothing is collected: {error.message}", hint=hint) from None


def delete_version(store: Store, version: Version) -> bool:
    """Moves a manifest below `deleted/`: from here it can be restored. False when it is gone already."""
    try:
        data = store.get(version.key)
    except NotFound:
        return False
    if data == FENCE:
        return False
    if not hashlib.sha256(data).hexdigest().startswith(version.digest):
        raise IntegrityError(f"{version.key} in {store.url} does not match its digest: it is not deleted")
    store.put(deleted_key(version.key), data)
    store.delete(version.key)
    return True


def _keys(manifest: Manifest) -> set[str]:
    return {blob_key(blob) for blob in manifest.blobs}


def _ancestors(living: Iterable[Manifest], known: Iterable[Manifest]) -> set[str]:
    """Digests of everything that `living` descends from."""
    parents = {manifest.digest: [parent.digest for parent in manifest.parents] for manifest in known}
    found: set[str] = set()
    todo = [parent.digest for manifest in living for parent in manifest.parents]
    while todo:
        digest = todo.pop()
        if digest not in found:
            found.add(digest)
            todo.extend(parents.get(digest, ()))
    return found
