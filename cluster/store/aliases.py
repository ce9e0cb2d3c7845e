"""Aliases: names that move from version to version. Each keeps where it was before, the last 50 times.

A move compares and swaps, so of two people who move from the same state one is told. Where the server can't compare,
moves with an expectation are refused and others are right only while one person at a time makes them.

Undoing a move goes back to where the alias was before it; undoing again goes back further, as in an editor: what was
undone is skipped, and stays in the history. A removed alias keeps its record, so that this can be undone too.
"""

from __future__ import annotations

import logging
import random
import re
import time
import uuid
from collections.abc import Callable

from pydantic import Field

from cluster.store.base import Store
from cluster.store.claim import Claim, Guard, free
from cluster.store.layout import Version, alias_key
from cluster.store.records import read_record, to_bytes
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import Record, Sha256, now_utc
from tlgan.naming import check_name

log = logging.getLogger("tlgan.store")

ABSENT = "none"  # as `expect`: the alias must not exist
MAX_BYTES = 64 << 10
ATTEMPTS = 20
HISTORY = 50
_warned: set[str] = set()


class Target(Record):
    """What an alias points at: the manifest's full digest and the id in its key. `undo`: it came here by an undo.

    `run`, `attempt`: who moved it here, where a run did.
    """

    digest: Sha256
    version: str = Field(max_length=64)
    moved: str
    undo: bool = False
    removed: bool = False
    run: str | None = None
    attempt: int | None = None


class Alias(Target):
    """The stored record. `op` is drawn anew for every move: it tells a lost reply from a lost race.

    `history`: where it was before, the latest first; `prev` is the first of them. `removed`: the alias is no more, and
    the record tells where it was.
    """

    name: str
    alias: str
    op: str
    prev: Target | None = None
    history: list[Target] = Field(default=[])

    @property
    def before(self) -> list[Target]:
        """`history`, also of a record that was written without one."""
        if self.prev and (not self.history or self.history[0] != self.prev):
            return [self.prev, *self.history]
        return self.history

    @property
    def undone(self) -> Target | None:
        """Where an undo goes; None when nothing before is known."""
        stack: list[Target] = []
        for target in [*self.before[::-1], self]:
            if target.undo:
                del stack[-1:]
            if not stack or not _same(stack[-1], target):
                stack.append(target)
        return stack[-2] if len(stack) > 1 else None


def _same(one: Target, other: Target) -> bool:
    return (one.digest, one.version, one.removed) == (other.digest, other.version, other.removed)


def read_alias(store: Store, name: str, alias: str) -> tuple[Alias, str] | None:
    """The record and its token, or None. Raises `IntegrityError` when it stays unreadable."""
    found = read_any(store, name, alias)
    return None if found is None or found[0].removed else found


def read_any(store: Store, name: str, alias: str) -> tuple[Alias, str] | None:
    """As `read_alias`, and the record of an alias that was removed."""
    key = alias_key(name, alias)
    found = read_record(store, key, Alias, MAX_BYTES, "move the alias again to replace it", unchecked=True)
    if found and (found[0].name, found[0].alias) != (name, alias):
        raise IntegrityError(f"{key} in {store.url} is the record of {found[0].name}:{found[0].alias}")
    return found


def list_aliases(store: Store, name: str) -> dict[str, Alias]:
    """All aliases of an artifact, by name."""
    found: dict[str, Alias] = {}
    for info in store.list(f"aliases/{name}/"):
        alias = info.key.rpartition("/")[2].removesuffix(".json")
        if info.key == alias_key(name, alias) and (record := read_alias(store, name, alias)):
            found[alias] = record[0]
    return found


def move_alias(
    store: Store,
    alias: str,
    version: Version,
    digest: str,
    expect: str | None = None,
    guard: Guard = free,
    claim: Claim | None = None,
) -> Alias:
    """Points `alias` at a version of the same artifact; `expect` as in `ArtifactStore.move_alias`.

    `guard` is asked after the state was read that the move swaps: whoever takes over later moves the alias later.
    Raises `Conflict` when a later attempt than `claim` moved it last.
    """
    check_name(alias, "alias")
    who = claim.model_dump() if claim else {}

    def change(current: Alias | None) -> Target | None:
        guard()
        if claim and current and current.run == claim.run and (current.attempt or 0) > claim.attempt:
            place = f"alias {version.name}:{alias}"
            raise Conflict(f"{place} was moved by attempt {current.attempt} of {claim.run}, this is {claim.attempt}")
        if current is not None and not current.removed and current.digest == digest:
            return None
        return Target(digest=digest, version=version.id, moved=now_utc(), **who)

    return _change(store, version.name, alias, change, expect)


def undo_alias(store: Store, seen: Alias, expect: str | None = None) -> Alias:
    """Points the alias to where it was before the move that `seen` records. Raises `Conflict` when it moved since."""
    target = seen.undone
    if target is None:
        hint = f"tlgan artifact alias {seen.name} {seen.alias} --history lists where it was"
        raise NotFound(f"{seen.name}:{seen.alias} has no move left to undo", hint=hint)

    def change(current: Alias | None) -> Target:
        if current is None or current.op != seen.op:
            hint = "look at the new state, then decide again"
            raise Conflict(f"alias {seen.name}:{seen.alias} was moved meanwhile", hint=hint)
        return target.model_copy(update={"moved": now_utc(), "undo": True, "run": None, "attempt": None})

    return _change(store, seen.name, seen.alias, change, expect, strict=True)


def remove_alias(store: Store, name: str, alias: str, expect: str | None = None) -> Alias:
    """Takes the alias away; its record stays, with where it was. Raises `NotFound`."""

    def change(current: Alias | None) -> Target:
        if current is None or current.removed:
            raise NotFound(f"{name} has no alias {alias!r} in {store.url}")
        gone = {"moved": now_utc(), "removed": True, "run": None, "attempt": None}
        return _target(current).model_copy(update=gone | {"undo": False})

    return _change(store, name, alias, change, expect, strict=True)


def _change(
    store: Store,
    name: str,
    alias: str,
    change: Callable[[Alias | None], Target | None],
    expect: str | None,
    strict: bool = False,
) -> Alias:
    """Replaces the record by compare-and-swap. `change` tells the new target from the record as it is, or None."""
    if expect is not None:
        _check_expectation(expect)
    capable = store.capabilities.compare_and_swap
    if not capable:
        _single_writer(store, expect)
    key, operation = alias_key(name, alias), uuid.uuid4().hex
    for _ in range(ATTEMPTS):
        current, token = _current(store, name, alias, strict or expect is not None)
        if current is not None and current.op == operation:  # the reply of our own move was lost
            return current
        if expect is not None:
            _compare(name, alias, current, expect)
        target = change(current)
        if target is None:
            assert current is not None
            return current
        record = _record(name, alias, target, operation, current)
        data = to_bytes(record)
        if not capable:
            store.put(key, data)
            return record
        try:
            store.compare_and_swap(key, data, token)
            return record
        except Conflict:
            time.sleep(random.uniform(0, 0.05))
    raise Conflict(f"alias {name}:{alias} kept changing; gave up after {ATTEMPTS} tries")


def _current(store: Store, name: str, alias: str, strict: bool) -> tuple[Alias | None, str | None]:
    """Record and token as they are now. A damaged record counts as none, unless `strict`."""
    try:
        return read_any(store, name, alias) or (None, None)
    except IntegrityError as error:
        if strict:
            raise
        log.warning("%s; it is replaced, what was before is lost", error.message)
        return None, store.read(alias_key(name, alias))[1]


def _record(name: str, alias: str, target: Target, operation: str, current: Alias | None) -> Alias:
    """Fields that a newer writer added to the record are kept."""
    history = [_target(current), *current.before][:HISTORY] if current else []
    fields = {"name": name, "alias": alias, "op": operation, "prev": history[0] if history else None}
    unknown = (current.model_extra or {}) if current else {}
    return Alias.model_validate({**unknown, **dict(target), **fields, "history": history})


def _target(record: Alias) -> Target:
    return Target(**{name: getattr(record, name) for name in Target.model_fields})


def _check_expectation(expect: str) -> None:
    if expect != ABSENT and not re.fullmatch(r"[0-9a-f]{4,64}", expect):
        raise SpecError(
            f"{expect!r} is nothing an alias can be expected to point at",
            hint=f'give 4 to 64 digits of a manifest digest, or "{ABSENT}" for an alias that must not exist yet',
        )


def _compare(name: str, alias: str, current: Alias | None, expect: str) -> None:
    there = current if current is not None and not current.removed else None
    holds = there is None if expect == ABSENT else there is not None and there.digest.startswith(expect)
    if not holds:
        points = f"points at {there.digest[:16]}" if there else "does not exist"
        raise Conflict(
            f"alias {name}:{alias} {points}; expected {expect}", hint="look at the new state, then decide again"
        )


def _single_writer(store: Store, expect: str | None) -> None:
    note = store.capabilities.note
    if expect is not None:
        raise BackendError(
            f"{store.url} can't move an alias with an expectation: {note}",
            hint="leave the expectation out, and make sure that nobody else moves this alias meanwhile",
        )
    if store.url in _warned:
        return
    _warned.add(store.url)
    log.warning("single-writer mode on %s: %s, so two people who move an alias at once do not notice", store.url, note)
