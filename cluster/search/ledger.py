"""The decision ledger of a sweep: what was suggested, measured, decided, and why. Append-only, in the store.

runs/<run>/ledger/<number>.jsonl      one or more entries, one JSON object a line; numbers follow each other without a gap

The search is what these entries make of it, and nothing else: it is rebuilt from them after a kill. An entry once written
stands. Entries, by `type`:

suggested   trial, params, why           a trial begins to exist
measured    trial, nimg, value, best, spent    at a rung, or at the trial's end; `spent` is not part of any decision
promoted    trial, nimg, why             it goes on after the measurement at nimg
stopped     trial, nimg, why             it does not
copied      trial, nimg, source, params, why   population based training: it goes on from `source`'s state, with these values
ended       trial, state, reason         succeeded, failed, or stopped when the budget was used up
lost        trial, reason                its worker died; it is given another
again       trial, why                   a trial that was over is trained once more; what was decided about it stands
extended    trials, why                  the search has so many trials from here on
exhausted   why                          the budget is used up: nothing begins any more
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cluster.patience import patiently
from cluster.store.base import Store
from cluster.store.transfer import in_parallel
from tlgan.errors import Conflict, IntegrityError

Entry = dict[str, Any]
DECISIONS = ("suggested", "promoted", "stopped", "copied", "ended", "extended")
MAX_BYTES = 64 << 20
THREADS = 8
_KEY = re.compile(r"(\d{8})\.jsonl")


class Ledger:
    """The entries of the run `run_id`, as they are in the store. One attempt at a time writes; `guard` raises for others."""

    def __init__(self, store: Store, run_id: str, guard: Callable[[], None] = lambda: None) -> None:
        self.store, self.prefix, self.guard = store, f"runs/{run_id}/ledger/", guard
        self.entries: list[Entry] = []
        self._next = 0
        keys = [info.key for info in store.list(self.prefix)]
        for key, data in zip(
            keys, in_parallel(lambda key: store.get(key, max_bytes=MAX_BYTES), keys, THREADS), strict=True
        ):
            self._check(key)
            self.entries += _parse(key, data)
            self._next += 1

    def _check(self, key: str) -> None:
        match = _KEY.fullmatch(key.removeprefix(self.prefix))
        if match is None or int(match[1]) != self._next:
            raise IntegrityError(f"{key} is not what follows in the ledger; expected {self._next:08d}.jsonl")

    def append(self, *entries: Entry) -> None:
        """Writes `entries` as one object: all of them or none. Raises `Conflict` when another attempt was faster."""
        if not entries:
            return
        data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        key = f"{self.prefix}{self._next:08d}.jsonl"

        def write() -> None:
            self.guard()
            if not self.store.put_if_absent(key, data) and self.store.get(key, max_bytes=MAX_BYTES) != data:
                raise Conflict(f"{key} exists: another attempt writes this ledger")

        patiently(write, "the ledger of the search")
        self.entries += entries
        self._next += 1

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


def _parse(key: str, data: bytes) -> list[Entry]:
    try:
        return [json.loads(line) for line in data.splitlines()]
    except ValueError as error:
        raise IntegrityError(f"{key} can't be read: {error}") from None


def decisions(entries: Iterable[Entry]) -> list[Entry]:
    """What was decided, in an order that does not tell when: by trial, then by images. Two searches with equal lists took the
    same decisions."""
    made = [{k: v for k, v in entry.items() if k != "spent"} for entry in entries if entry["type"] in DECISIONS]
    order = {name: place for place, name in enumerate(DECISIONS)}
    return sorted(made, key=lambda e: (e.get("trial", ""), e.get("nimg", 0), order[e["type"]], json.dumps(e)))
