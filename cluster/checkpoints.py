"""Checkpoints in the store, so that a run goes on after its node is gone.

runs/<run>/checkpoints/<nimg>-<attempt>/state.safetensors, state.json
runs/<run>/checkpoints/<nimg>-<attempt>/complete.json    digests of both; written last: without it the checkpoint does not exist

Each attempt of a run writes below names of its own: one that was taken over and wakes up can neither overwrite nor remove
what a later one wrote. Older versions wrote without the attempt; it counts as 0.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cluster.discard import discard
from cluster.drafts import unpin_all
from cluster.runs import FINAL, Runs
from cluster.store.base import Store, sha256_of
from cluster.store.claim import Guard, free
from cluster.store.transfer import in_parallel
from tlgan.errors import BackendError, IntegrityError, NotFound

log = logging.getLogger("tlgan.checkpoints")
FILES = ("state.safetensors", "state.json")
COMPLETE = "complete.json"
THREADS = 8
_KEY = re.compile(r"(\d+)(?:-(\d+))?/([^/]+)")


class Place(NamedTuple):
    """A checkpoint in the store. They are in the order in which they were made."""

    attempt: int
    nimg: int

    @property
    def folder(self) -> str:
        return f"{self.nimg:012d}-{self.attempt}" if self.attempt else f"{self.nimg:012d}"


class Checkpoints:
    """Checkpoints of one run, as attempt number `attempt` sees and writes them. `keep`: the newest so many stay; 0: all.

    `guard` raises when this attempt may not write any more.
    """

    def __init__(self, store: Store, run_id: str, keep: int = 2, attempt: int = 1, guard: Guard = free) -> None:
        self.store, self.prefix, self.keep = store, f"runs/{run_id}/checkpoints/", keep
        self.attempt, self.guard = attempt, guard

    def push(self, path: Path, nimg: int) -> bool:
        """Uploads and verifies a checkpoint directory. A store that is away costs the copy (then False), not the run.

        Raises `Conflict` when a later attempt has begun.
        """
        place = self.prefix + Place(self.attempt, nimg).folder + "/"
        try:
            self.guard()
            digests = {name: sha256_of(path / name) for name in FILES}
            for name in FILES:
                self.store.put(place + name, path / name, sha256=digests[name])
            self.guard()
            self.store.put(place + COMPLETE, json.dumps(digests).encode())
            self._tidy()
            return True
        except BackendError as error:
            log.warning("checkpoint %d is on this machine only: %s", nimg, error)
            return False

    def complete(self) -> list[Place]:
        """All complete checkpoints, oldest first."""
        return sorted(place for place, names in self._found().items() if COMPLETE in names)

    def fetch(self, nimg: int, root: Path) -> None:
        """Puts the checkpoint at `nimg` images, the latest attempt's, into `root`. Raises `NotFound`, `IntegrityError`."""
        places = [place for place in self.complete() if place.nimg == nimg and place.attempt <= self.attempt]
        if not places:
            raise NotFound(f"there is no checkpoint at {nimg} images below {self.prefix}")
        if not (root / f"ckpt-{nimg:012d}").is_dir():
            self._fetch(places[-1], root)

    def drop_before(self, nimg: int) -> None:
        """Removes those at fewer than `nimg` images, whichever attempt made them."""
        for place, names in self._found().items():
            if place.nimg < nimg and place.attempt <= self.attempt:
                self._remove(place, names)

    def fetch_newer(self, root: Path) -> None:
        """Puts the newest checkpoint that can be read into `root`, unless one at least as new is there."""
        root.mkdir(parents=True, exist_ok=True)
        local = max((int(p.name.removeprefix("ckpt-")) for p in root.glob("ckpt-*")), default=-1)
        for place in reversed(self.complete()):
            if place.nimg <= local:
                return
            try:
                self._fetch(place, root)
                return
            except (IntegrityError, NotFound) as error:
                log.warning("checkpoint %d is damaged, trying the one before: %s", place.nimg, error)

    def clear(self) -> None:
        """Removes all up to this attempt's, half uploaded ones too: the run has ended and its result is published."""
        for place, names in self._found().items():
            if place.attempt <= self.attempt:
                self._remove(place, names)

    def _tidy(self) -> None:
        """Leaves the newest complete ones. Half of one that an earlier attempt left behind goes too."""
        if not self.keep:
            return
        found = {place: names for place, names in self._found().items() if place.attempt <= self.attempt}
        kept = sorted(place for place, names in found.items() if COMPLETE in names)[-self.keep :]
        for place, names in found.items():
            if place not in kept:
                self._remove(place, names)

    def _found(self) -> dict[Place, set[str]]:
        """Checkpoint -> the names of its files, whole or not."""
        found: dict[Place, set[str]] = defaultdict(set)
        for info in self.store.list(self.prefix):
            if match := _KEY.fullmatch(info.key.removeprefix(self.prefix)):
                found[Place(int(match[2] or 0), int(match[1]))].add(match[3])
        return found

    def _fetch(self, place: Place, root: Path) -> None:
        folder = f"{self.prefix}{place.folder}/"
        digests = _digests(folder + COMPLETE, self.store.get(folder + COMPLETE, max_bytes=65536))
        temporary = root / f".fetch-{place.nimg:012d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name in FILES:
                self.store.download(folder + name, temporary / name, sha256=digests[name])
            temporary.rename(root / f"ckpt-{place.nimg:012d}")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _remove(self, place: Place, names: set[str]) -> None:
        """What makes it whole goes first: one half removed is never taken for whole."""
        folder = f"{self.prefix}{place.folder}/"
        discard(self.store, [folder + name for name in sorted(names, key=lambda name: name != COMPLETE)])


def _digests(key: str, data: bytes) -> dict[str, str]:
    try:
        return {name: str(json.loads(data)[name]) for name in FILES}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{key} can't be read: {error!r}") from None


@dataclass(frozen=True)
class Leftover:
    """What a run keeps for a resume that never came: its checkpoints and drafts. `silent`: nothing was heard of it so long.

    `state` is that of its record, None without one; `keys` are in the order in which they have to go.
    """

    run: str
    state: str | None
    attempt: int
    silent: timedelta
    keys: list[str]
    bytes: int


def old_checkpoints(store: Store, older_than: timedelta, now: datetime | None = None) -> list[Leftover]:
    """Runs that ended, or of which nothing was heard, longer than `older_than` ago, and have something left. Only reads.

    A run that is running is never among them.
    """
    moment = now or datetime.now(UTC)
    found = in_parallel(lambda run: _leftover(store, run, moment), store.folders("runs/"), THREADS)
    return [one for one in found if one and one.silent > older_than]


def remove_old(store: Store, old: Leftover) -> int:
    """Removes it, and frees the blobs of its drafts; the bytes that went. None go when the run was taken up since."""
    record = Runs(store).find(old.run)
    if record and (record.attempt, record.state) != (old.attempt, old.state):
        log.warning("run %s was taken up again: its checkpoints stay", old.run)
        return 0
    for key in old.keys:
        store.delete(key)
    unpin_all(store, old.run)
    return old.bytes


def _leftover(store: Store, run: str, now: datetime) -> Leftover | None:
    """What there is to remove, however old; None for nothing, and for a run that runs on this machine."""
    prefixes = [f"runs/{run}/checkpoints/", f"runs/{run}/draft"]
    trials = [f"runs/{run}/trials/{trial}/" for trial in store.folders(f"runs/{run}/trials/")]
    prefixes += [trial + what for trial in trials for what in ("draft", "checkpoints/")]
    infos = [info for prefix in prefixes for info in store.list(prefix)]
    if not infos:
        return None
    record = Runs(store).find(run)
    running = record is not None and record.state not in FINAL
    if record is not None and running and record.process_is_alive:
        return None
    signs = [info.modified for info in [*infos, *store.list(f"runs/{run}/run.json"), *store.list(f"runs/{run}/alive/")]]
    if running:  # one that writes no signs of life writes events
        signs += [info.modified for info in store.list(f"runs/{run}/events/")]
    keys = sorted((info.key for info in infos), key=lambda key: not key.endswith(f"/{COMPLETE}"))
    attempt, state = (record.attempt, record.state) if record else (0, None)
    return Leftover(run, state, attempt, now - max(signs), keys, sum(info.size for info in infos))
