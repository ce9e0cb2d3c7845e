"""Aliases: names that move from version to version. Each keeps what it pointed at before.

A move compares and swaps, so of two people who move from the same state one is told. Where the server can't compare,
moves with an expectation are refused and others are right only while one person at a time makes them.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
import uuid
from typing import Any

from pydantic import Field, ValidationError

from cluster.store.base import Store
from cluster.store.layout import Version, alias_key
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import Record, Sha256, now_utc
from tlgan.naming import check_name
from tlgan.recipe import canonical_json

log = logging.getLogger("tlgan.store")

ABSENT = "none"  # as `expect`: the alias must not exist
MAX_BYTES = 64 << 10
ATTEMPTS = 20
_warned: set[str] = set()


class Target(Record):
    """What an alias points at: the manifest's full digest and the id in its key."""

    digest: Sha256
    version: str = Field(max_length=64)
    moved: str


class Alias(Target):
    """The stored record. `op` is drawn anew for every move: it tells a lost reply from a lost race."""

    name: str
    alias: str
    op: str
    prev: Target | None = None


def read_alias(store: Store, name: str, alias: str) -> tuple[Alias, str] | None:
    """The record and its token, or None. Raises `IntegrityError` when it stays unreadable."""
    key = alias_key(name, alias)
    for attempt in range(4):
        try:
            data, token = store.read(key, max_bytes=MAX_BYTES)
        except NotFound:
            return None
        try:
            record = Alias.model_validate(json.loads(data))
        except (ValueError, RecursionError) as error:  # a server without atomic replace shows torn records for a moment
            reason = "not a record of an alias" if isinstance(error, ValidationError) else str(error)
            time.sleep(0.02 * 2**attempt)
            continue
        if (record.name, record.alias) != (name, alias):
            raise IntegrityError(f"{key} in {store.url} is the record of {record.name}:{record.alias}")
        return record, token
    raise IntegrityError(f"{key} in {store.url} can't be read: {reason}", hint="move the alias again to replace it")


def list_aliases(store: Store, name: str) -> dict[str, Alias]:
    """All aliases of an artifact, by name."""
    found: dict[str, Alias] = {}
    for info in store.list(f"aliases/{name}/"):
        alias = info.key.rpartition("/")[2].removesuffix(".json")
        if info.key == alias_key(name, alias) and (record := read_alias(store, name, alias)):
            found[alias] = record[0]
    return found


def move_alias(store: Store, alias: str, version: Version, digest: str, expect: str | None = None) -> Alias:
    """Points `alias` at a version of the same artifact; `expect` as in `ArtifactStore.move_alias`."""
    check_name(alias, "alias")
    if expect is not None:
        _check_expectation(expect)
    capable = store.capabilities.compare_and_swap
    if not capable:
        _single_writer(store, expect)
    operation = uuid.uuid4().hex
    for _ in range(ATTEMPTS):
        current, token = _current(store, version.name, alias, expect)
        if current is not None and current.op == operation:  # the reply of our own move was lost
            return current
        if expect is not None:
            _compare(version.name, alias, current, expect)
        if current is not None and current.digest == digest:
            return current
        record = _record(version, alias, digest, operation, current)
        data = canonical_json(record.model_dump())
        if not capable:
            store.put(alias_key(version.name, alias), data)
            return record
        try:
            store.compare_and_swap(alias_key(version.name, alias), data, token)
            return record
        except Conflict:
            time.sleep(random.uniform(0, 0.05))
    raise Conflict(f"alias {version.name}:{alias} kept changing; gave up after {ATTEMPTS} tries")


def _current(store: Store, name: str, alias: str, expect: str | None) -> tuple[Alias | None, str | None]:
    """Record and token as they are now. A damaged record counts as none, unless something is expected of it."""
    try:
        return read_alias(store, name, alias) or (None, None)
    except IntegrityError as error:
        if expect is not None:
            raise
        log.warning("%s; it is replaced, what was before is lost", error.message)
        return None, store.read(alias_key(name, alias))[1]


def _record(version: Version, alias: str, digest: str, operation: str, current: Alias | None) -> Alias:
    prev = current and Target(digest=current.digest, version=current.version, moved=current.moved)
    fields: dict[str, Any] = {"name": version.name, "alias": alias, "op": operation, "prev": prev}
    return Alias(digest=digest, version=version.id, moved=now_utc(), **fields)


def _check_expectation(expect: str) -> None:
    if expect != ABSENT and not re.fullmatch(r"[0-9a-f]{4,64}", expect):
        raise SpecError(
            f"{expect!r} is nothing an alias can be expected to point at",
            hint=f'give 4 to 64 digits of a manifest digest, or "{ABSENT}" for an alias that must not exist yet',
        )


def _compare(name: str, alias: str, current: Alias | None, expect: str) -> None:
    holds = current is None if expect == ABSENT else current is not None and current.digest.startswith(expect)
    if not holds:
        points = f"points at {current.digest[:16]}" if current else "does not exist"
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
