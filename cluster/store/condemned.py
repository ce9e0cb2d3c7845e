"""Condemned lists: what a collector may delete from now on. Everybody who counts on a key reads them after leasing it.

A list stays until its collector has made its last delete. One whose collector was killed stays for good, for nobody can
know that it will not wake up; a person who knows says so (`tlgan artifact gc --forget`).
"""

from __future__ import annotations

import os
import socket
import uuid

from cluster.store.base import Store
from cluster.store.records import read_record, to_bytes
from tlgan.errors import NotFound
from tlgan.manifest import Record, now_utc

MAX_BYTES = 256 << 20
HINT = "no push can go on before it can be read; remove it when no collection is running"


class Condemned(Record):
    """`keys`: blobs, versions and tombstones that the collector `id` may delete."""

    id: str
    holder: str
    started: str
    keys: list[str]

    @property
    def key(self) -> str:
        return f"gc/{self.id}.json"


def condemn(store: Store, keys: list[str]) -> Condemned:
    """Writes the list of a new collector."""
    started = now_utc()
    stamp = "".join(letter for letter in started if letter.isalnum())
    holder = f"{socket.gethostname()}:{os.getpid()}"
    condemned = Condemned(id=f"{stamp}-{uuid.uuid4().hex[:8]}", holder=holder, started=started, keys=keys)
    store.put(condemned.key, to_bytes(condemned))
    return condemned


def condemned_keys(store: Store) -> set[str]:
    """All keys that some collector may delete."""
    return {key for one in condemned_lists(store) for key in one.keys}


def condemned_lists(store: Store) -> list[Condemned]:
    """The lists of collectors that have not finished. Raises `IntegrityError` for one that can't be read."""
    found = (read_record(store, info.key, Condemned, MAX_BYTES, HINT) for info in store.list("gc/"))
    return [one[0] for one in found if one]  # None: its collector has finished since


def forget(store: Store, gc_id: str) -> None:
    """Removes the list of a collector that will never wake up. Raises `NotFound`."""
    known = {one.id: one for one in condemned_lists(store)}
    if gc_id not in known:
        hint = f"unfinished ones: {', '.join(known) or 'none'}"
        raise NotFound(f"there is no unfinished collection {gc_id} in {store.url}", hint=hint)
    store.delete(known[gc_id].key)
