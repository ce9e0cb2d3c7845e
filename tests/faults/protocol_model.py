"""The protocol of the store (`publish.py`, `gc.py`, `trash.py`) as processes of `model.py`, step by step.

Objects: `blob` <key>; `version` <id> -> keys of its blobs, or FENCE; `deleted` <id> -> (keys, age); `lease` <id> ->
(names of objects, version or None); `broken` <lease>; `gc` <collector> -> names; `alias` <name> -> version.
The rest is what was promised to somebody: `acked` <id> -> (keys, collectors that had decided against it already), `undo` <id> ->
keys, `aliased` <alias> -> version. `holding` <lease>: its holder's heart may still beat.

A blob's key is its content, then "-" and a nonce, if it has one. Time has no length: a lease may be taken for expired
whenever a collector looks at it, and `age` makes every deletion too old to be restored.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from faults.model import Call, Items, Process, call, choose, delete, get, listing, put, put_if_absent

FENCE = "FENCE"
ATTEMPTS = 3
YOUNG, OLD = "young", "old"

Steps = Generator[Call, Any, Any]


@dataclass(frozen=True)
class Rules:
    """What is done. The defaults are the protocol; anything else takes one of its steps out."""

    create_only: bool = True  # the server's, not the protocol's
    lease: bool = True
    condemn: bool = True
    avoid_condemned: bool = True
    leases_after_condemning: bool = True
    list_stays: bool = True
    fence: bool = True
    fence_on_weak_servers: bool = False
    fence_before_taking: bool = True
    spare_broken_versions: bool = True
    ask_lease: bool = True
    ask_after_aliases: bool = True
    ask_early_leases: bool = True
    grace_only: bool = False
    restore_minds_fences: bool = True
    restore_keeps_tombstone: bool = True

    @property
    def asks(self) -> bool:
        return self.lease and self.ask_lease

    @property
    def fences(self) -> bool:
        return self.fence and (self.create_only or self.fence_on_weak_servers)


def whole(items: Items, keys: Iterable[str]) -> bool:
    return all(("blob", key) in items for key in keys)


@call
def take_lease(items: Items, lease: str, names: frozenset[str], version: str | None) -> None:
    items["lease", lease] = names, version
    items["holding", lease] = True


@call
def drop_lease(items: Items, lease: str) -> None:
    items.pop(("lease", lease), None)
    items.pop(("holding", lease), None)


@call
def beat(items: Items, lease: str, names: frozenset[str], version: str | None) -> None:
    """A renewal; it may come after a collector broke the lease, never after the holder dropped it."""
    if ("holding", lease) in items:
        items["lease", lease] = names, version


@call
def read_leases(items: Items, me: str) -> tuple[tuple[str, Any], ...]:
    """From here on a collector has made up its mind."""
    items["decided", me] = True
    return tuple(sorted((name, value) for (kind, name), value in items.items() if kind == "lease"))


@call
def is_valid(items: Items, lease: str) -> bool:
    return ("lease", lease) in items and ("broken", lease) not in items


@call
def are_valid(items: Items, leases: frozenset[str]) -> bool:
    """One listing."""
    return all(is_valid(lease).act(items, lease) for lease in leases)


@call
def promise(items: Items, lease: str | None, version: str, keys: tuple[str, ...], alias: str | None) -> bool:
    """Asks for the own lease (None: does not); if it is valid, somebody is told that it is done."""
    if lease and not is_valid(lease).act(items, lease):
        return False
    if keys:
        decided = {name for kind, name in items if kind == "decided"}
        against = frozenset(name for name in decided if version in items.get(("gc", name), ()))
        items["acked", version] = keys, against
    if alias and items["alias", alias] == version:  # nobody moved it on
        items["aliased", alias] = version
    return True


@call
def point(items: Items, alias: str, version: str) -> None:
    items["alias", alias] = version
    items.pop(("aliased", alias), None)


@call
def entomb(items: Items, version: str, keys: tuple[str, ...], restorable: bool) -> None:
    items["deleted", version] = keys, YOUNG
    if restorable and whole(items, keys):
        items["undo", version] = keys


@call
def take_away(items: Items, version: str, by: str) -> None:
    """Deletes a version. It ends the promise, unless that was given when the deletion was decided already."""
    items.pop(("version", version), None)
    if by not in items.get(("acked", version), ((), {by}))[1]:
        del items["acked", version]


@call
def age(items: Items) -> None:
    for (kind, name), value in list(items.items()):
        if kind == "deleted":
            items[kind, name] = value[0], OLD
            items.pop(("undo", name), None)


def faults_of(items: Items) -> Iterator[str]:
    """What must never be, in the state that `items` is."""

    for (kind, name), value in items.items():
        if kind == "acked" and not (items.get(("version", name)) == value[0] and whole(items, value[0])):
            yield "an acknowledged version lacks data"
        if kind == "version" and value != FENCE and not whole(items, value):
            yield "a partial version is visible"
        if kind == "undo" and not (whole(items, value) and (("deleted", name) in items or ("version", name) in items)):
            yield "a deletion can't be undone"
        if kind == "aliased" and items.get(("version", value), FENCE) == FENCE:
            yield "an alias points at nothing"


def create(rules: Rules, version: str, value: Any) -> Steps:
    """Put if absent, as the server can."""
    if rules.create_only:
        return (yield put_if_absent(("version", version), value))
    if (yield get(("version", version))) is not None:
        return False
    yield put(("version", version), value)
    return True


def condemned_names(rules: Rules) -> Steps:
    lists = (yield listing("gc")) if rules.avoid_condemned else ()
    return frozenset(name for _, names in lists for name in names)


def push(
    me: str,
    contents: tuple[str, ...],
    rules: Rules,
    alias: str | None = None,
    has_files: bool = True,
    newest: bool = False,
    early: frozenset[str] = frozenset(),
) -> Process:
    """`newest`: content equal to the newest version's takes that version's place. Without files: `commit` of staged blobs.

    `early`: leases under which the keys' blobs were placed already.
    """
    keys, version = contents, f"{me}1"
    for found, value in (yield listing("version")) if newest else ():
        if value != FENCE and tuple(key[0] for key in value) == contents:
            version, keys = found, value
    for attempt in range(2, ATTEMPTS + 2):
        lease = f"{me}{attempt}"
        if rules.lease:
            yield take_lease(lease, frozenset(keys), version)
        condemned = yield from condemned_names(rules)
        if version in condemned or not condemned.isdisjoint(keys):
            keys = yield from elsewhere(keys, condemned, lease)
            version = lease
            yield drop_lease(lease)
            continue
        trusted = early and (not rules.ask_early_leases or (yield are_valid(early)))
        unsure = tuple(key for key in keys if key not in contents) if trusted else keys
        if not (yield from place(unsure, has_files)):
            yield drop_lease(lease)
            return
        if not (yield from create(rules, version, keys)) and (yield get(("version", version))) != keys:
            version = lease
            yield drop_lease(lease)
            continue
        done = False
        if (rules.create_only and rules.ask_after_aliases) or not rules.asks or (yield is_valid(lease)):
            if alias:
                yield point(alias, version)
            done = yield promise(lease if rules.asks and rules.ask_after_aliases else None, version, keys, alias)
        yield drop_lease(lease)
        if done:
            return


def elsewhere(keys: tuple[str, ...], condemned: frozenset[str], nonce: str) -> Steps:
    """Keys that are not condemned: of another copy, or fresh ones."""
    stored = [name for name, _ in (yield listing("blob"))]
    moved = []
    for key in keys:
        content = key[0]
        copies = [name for name in stored if name[0] == content and name not in condemned]
        fresh = f"{content}-{nonce}" if content in condemned else content
        moved.append(key if key not in condemned else copies[0] if copies else fresh)
    return tuple(moved)


def place(keys: tuple[str, ...], has_files: bool) -> Steps:
    for key in keys:
        if (yield get(("blob", key))):
            continue
        if not has_files and not any(name[0] == key[0] for name, _ in (yield listing("blob"))):
            return False
        yield put(("blob", key), True)
    return True


def heart(lease: str, names: frozenset[str], version: str | None, times: int = 1) -> Process:
    """Renewals of a lease, at any time while its holder has it."""
    for _ in range(times):
        yield beat(lease, names, version)


def clock() -> Process:
    yield age()


def move_alias(me: str, alias: str, version: str, rules: Rules) -> Process:
    for attempt in range(1, ATTEMPTS):
        lease = f"{me}{attempt}"
        yield take_lease(lease, frozenset({version}), None)
        if version in (yield from condemned_names(rules)):
            break
        if (yield get(("version", version))) in (None, FENCE):
            break
        yield point(alias, version)
        if (yield promise(lease, version, (), alias)):
            break
        yield drop_lease(lease)
    yield drop_lease(lease)


def remove(me: str, version: str, restorable: bool = True) -> Process:
    """By hand, of a version that nothing points at."""
    yield put(("gc", me), frozenset({version}))
    needed = any(version in names or version == own for _, (names, own) in (yield read_leases(me)))
    needed = needed or any(target == version for _, target in (yield listing("alias")))
    collected = any(f"-{version}" in names for _, names in (yield listing("gc")))
    if not needed and not collected:
        yield from delete_version(me, version, restorable)
    yield delete(("gc", me))


def delete_version(me: str, version: str, restorable: bool) -> Steps:
    keys = yield get(("version", version))
    if keys in (None, FENCE):
        return
    yield entomb(version, keys, restorable)
    yield take_away(version, me)


def restore(me: str, version: str, rules: Rules) -> Process:
    found = yield get(("deleted", version))
    if found is None:
        return
    keys, lease = found[0], f"{me}1"
    yield take_lease(lease, frozenset({*keys, version, f"-{version}"}), None)
    condemned = yield from condemned_names(rules)
    free = condemned.isdisjoint({*keys, version, f"-{version}"})
    for key in keys if free else ():
        free = free and (yield get(("blob", key))) is not None
    if free:
        there = (yield from create(rules, version, keys)) or not rules.restore_minds_fences
        if not there and (yield get(("version", version))) != keys:
            yield drop_lease(lease)  # fenced: its content is published again, under another name
            yield from push(me, keys, rules, has_files=False)
            return
        if (yield promise(lease, version, keys, None)) and not rules.restore_keeps_tombstone:
            yield delete(("deleted", version))
    yield drop_lease(lease)


def collect(me: str, rules: Rules, *, may_go: tuple[str, ...] = (), restorable: bool = True) -> Process:
    """A collection; a tombstone's name on a condemned list is that of the version after a dash."""
    going, blobs, tombstones = yield from plan(may_go, restorable)
    names = going | blobs | frozenset(f"-{version}" for version in tombstones)
    if not names:
        return
    if rules.grace_only:
        for key in sorted(blobs):
            yield delete(("blob", key))
        return
    early = () if rules.leases_after_condemning else (yield read_leases(me))
    if rules.condemn:
        yield put(("gc", me), names)
    others = frozenset(name for own, listed in (yield listing("gc")) if own != me for name in listed)
    going = frozenset(version for version in going if f"-{version}" not in others)
    leases = (yield read_leases(me)) if rules.leases_after_condemning else early
    protected = frozenset[str]()
    for lease, (held, version) in leases:
        if (yield choose("live", "expired")) == "live":
            protected |= held | {version or ""}
            continue
        if rules.spare_broken_versions:
            protected |= going & (held | {version or ""})
        yield put(("broken", lease), True)
        if version and rules.fences:
            yield from create(rules, version, FENCE)
        yield delete(("lease", lease))
    protected |= frozenset(version for _, version in (yield listing("alias")))
    living = tuple((name, keys) for name, keys in (yield listing("version")) if keys != FENCE)
    dying = {}
    for version, keys in living:
        protected |= {f"-{version}"}
        if version not in going or version in protected or restorable:
            protected |= frozenset(keys)
        else:
            dying[version] = keys
    for version, (keys, how_old) in (yield listing("deleted")):
        if how_old == YOUNG and restorable:
            protected |= {*keys, f"-{version}"}
        else:
            dying[version] = keys
    going, blobs = going - protected, blobs - protected
    tombstones = frozenset(version for version in tombstones if f"-{version}" not in protected)
    dead = tuple(sorted((v, keys) for v, keys in dying.items() if v in tombstones or not blobs.isdisjoint(keys)))
    del early, leases, protected, living, dying, names, others
    if not rules.list_stays:
        yield delete(("gc", me))
    for version in sorted(going):
        yield from delete_version(me, version, restorable)
    for version, keys in dead if rules.fences and rules.fence_before_taking else ():
        if not (yield from create(rules, version, FENCE)) and (yield get(("version", version))) != FENCE:
            blobs, tombstones = blobs - frozenset(keys), tombstones - {version}
    for key in sorted(blobs):
        yield delete(("blob", key))
    for version in sorted(tombstones):
        yield delete(("deleted", version))
    yield delete(("gc", me))


def plan(may_go: tuple[str, ...], restorable: bool) -> Steps:
    """Versions, blobs and tombstones that may go. Leases may have been there, or not, when it looked."""
    blobs = frozenset(name for name, _ in (yield listing("blob")))
    held = frozenset[str]()
    for _, (names, version) in (yield listing("lease")):
        held |= names | {version or ""}
    held |= frozenset(version for _, version in (yield listing("alias")))
    versions = {name: keys for name, keys in (yield listing("version")) if keys != FENCE}
    deleted = yield listing("deleted")
    going = frozenset(versions).intersection(may_go) - held
    needed = {key for name, keys in versions.items() if name not in going or restorable for key in keys}
    old = {name: keys for name, (keys, how_old) in deleted if how_old == OLD or not restorable}
    needed |= {key for name, (keys, _) in deleted if name not in old for key in keys}
    return going, blobs - needed - held, frozenset(old) - frozenset(versions)
