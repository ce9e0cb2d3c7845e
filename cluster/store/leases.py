"""Leases: what a push needs is written down before it counts on it, so that a collector leaves it alone.

A lease names objects and, for a push, the version it is about to publish. It is renewed while its holder lives. A collector
judges its age by the server's clock alone. One that was not renewed for its `ttl` is *broken*: a marker tells its holder,
and a fence takes the place of the version, so that it can't be committed when the holder wakes up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from pydantic import Field

from cluster.store.base import ObjectInfo, Store
from cluster.store.claim import Claim
from cluster.store.layout import FENCE, broken_key, lease_key
from cluster.store.records import read_record, to_bytes
from cluster.store.transfer import in_parallel
from tlgan.canonical import canonical_json
from tlgan.errors import BackendError
from tlgan.manifest import Record, now_utc
from tlgan.naming import check_path

log = logging.getLogger("tlgan.store")

TTL = 900.0
THREADS = 8
PIN_TTL = 14 * 24 * 3600.0
MAX_BYTES = 16 << 20
HINT = "nobody knows what it protects; remove it when nobody is pushing"


class Lease(Record):
    """`keys`: objects that must stay; `version`: key of the manifest that is to be published; `ttl` in seconds.

    `run`, `attempt`: on whose behalf, where a run publishes.
    """

    id: str
    holder: str
    started: str
    ttl: float = Field(gt=0)
    keys: list[str]
    version: str | None = None
    run: str | None = None
    attempt: int | None = None

    @property
    def protected(self) -> set[str]:
        return {*self.keys, *([self.version] if self.version else [])}


class Held:
    """A lease of this process. `valid` asks the store whether nobody broke it; a push that was not told so is not done."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.store, self.lease = store, lease
        self._all = [lease]
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None

    @property
    def nonce(self) -> str:
        return self.lease.id[:16]

    def valid(self) -> bool:
        names = {info.key for info in self.store.list(f"leases/{self.lease.id}")}
        ids = [lease.id for lease in self._all]
        return all(lease_key(one) in names and broken_key(one) not in names for one in ids)

    def add(self, keys: Iterable[str]) -> None:
        """Protects more objects from here on, by a record of their own: on some servers one that is replaced is gone for a
        moment, and a collector that looks just then would know of none.
        """
        lease = self.lease.model_copy(update={"id": f"{self.lease.id}-{len(self._all)}", "keys": sorted(keys)})
        self._all.append(lease)
        self._write(lease)

    def _write(self, lease: Lease) -> None:
        self.store.put(lease_key(lease.id), to_bytes(lease))

    def _beat(self) -> None:
        while not self._stop.wait(self.lease.ttl / 3):
            for lease in list(self._all):
                try:
                    self._write(lease)
                except BackendError as error:  # tried again; the store's word at the end is what counts
                    log.warning("lease %s could not be renewed: %s", lease.id, error)

    def __enter__(self) -> Held:
        self._write(self.lease)
        self._heart = threading.Thread(target=self._beat, name="tlgan-lease", daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._heart:
            self._heart.join()
        in_parallel(lambda lease: drop(self.store, lease.id), self._all, THREADS)


def hold(
    store: Store, keys: Iterable[str], version: str | None = None, ttl: float = TTL, claim: Claim | None = None
) -> Held:
    """A lease for a `with` block: written on the way in, renewed in the background, dropped on the way out."""
    return Held(store, _lease(uuid.uuid4().hex, keys, version, ttl, claim))


def pin(store: Store, name: str, keys: Iterable[str], ttl: float = PIN_TTL) -> None:
    """Protects blobs beyond this process; a pin of the same name is replaced. Write it before the blobs."""
    lease = _lease(_pin_id(name), keys, None, ttl)
    store.put(lease_key(lease.id), to_bytes(lease))


def unpin(store: Store, name: str) -> None:
    drop(store, _pin_id(name))


def _pin_id(name: str) -> str:
    return "pin-" + check_path(name).replace("/", ".")


def drop(store: Store, lease_id: str) -> None:
    """Whoever may not delete leaves the lease to run out."""
    with contextlib.suppress(BackendError):
        store.delete(lease_key(lease_id))


def read_leases(store: Store) -> Iterator[tuple[Lease, ObjectInfo]]:
    """All leases there are. Raises `IntegrityError` for one that can't be read: nobody knows what it protects."""
    for info in store.list("leases/"):
        if info.key.endswith(".json") and (found := read_record(store, info.key, Lease, MAX_BYTES, HINT)):
            yield found[0], info


def expired(lease: Lease, info: ObjectInfo, now: datetime) -> bool:
    """`now` by the clock that wrote `info.modified`."""
    return now - info.modified > timedelta(seconds=lease.ttl)


def break_lease(store: Store, lease: Lease) -> None:
    """Takes a lease from a holder that gave no sign of life. It may wake up at any time: it can't publish any more."""
    store.put(broken_key(lease.id), canonical_json({"broken": now_utc()}))
    if lease.version:
        fence(store, lease.version)
    drop(store, lease.id)


def fence(store: Store, version_key: str) -> bool:
    """Keeps a version that is not there from being committed. False when it is there.

    Where a server can't create a key once, nothing is written: a fence that came late would replace what somebody
    published meanwhile. There, a holder that was left behind can make its version visible; it is told before it counts.
    """
    if not store.capabilities.create_only or store.put_if_absent(version_key, FENCE):
        return True
    found = store.head(version_key)
    return found is not None and found.size == len(FENCE)


def break_older(store: Store, claim: Claim) -> None:
    """Takes the leases of earlier attempts of the same run: whatever they were about to commit, they can't any more."""
    for lease, _ in read_leases(store):
        if claim.outdates(lease.run, lease.attempt):
            break_lease(store, lease)


def _lease(lease_id: str, keys: Iterable[str], version: str | None, ttl: float, claim: Claim | None = None) -> Lease:
    holder = f"{socket.gethostname()}:{os.getpid()}"
    who = claim.model_dump() if claim else {}
    return Lease(id=lease_id, holder=holder, started=now_utc(), ttl=ttl, keys=sorted(keys), version=version, **who)
