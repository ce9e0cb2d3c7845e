"""Bytes that rot: random damage to everything that is stored or cached, and what a person then gets.

A pull gives the right bytes or an error, never others; a collection is refused or spares what is needed.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path
from random import Random
from typing import Any

from cluster.store import ArtifactStore, Version, leases, open_store, records
from cluster.store.condemned import condemn
from cluster.store.gc import Collector
from cluster.store.layout import blob_key
from tests.faults.breaking import without_fsync
from tests.faults.operations import SOON, later
from tlgan.errors import TlganError
from tlgan.manifest import Manifest

PLACES = {
    "blob": "store/blobs/*/*",
    "manifest": "store/versions/*/*",
    "alias": "store/aliases/*/*",
    "lease": "store/leases/*.json",
    "condemned list": "store/gc/*",
    "cache": "cache/*/*/*",
}
KINDS = ("bit flip", "truncation", "swap", "deletion", "extra bytes")
FOUND, HEALED, HARMLESS, MISSED = "found", "healed", "harmless", "missed"


@dataclass
class Report:
    """(place, kind, what came of it) -> how often."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Damaged:
    """A small store below `root`, with a warm cache, a lease of a push and a list of a collector that never ended."""

    def __init__(self, root: Path, random: Random) -> None:
        self.root, self.random = root, random
        self.store = open_store(str(root / "store"))
        self.wanted: dict[str, dict[str, bytes]] = {}
        self.needed: dict[str, str] = {}
        for name in ("cats", "dogs"):
            for _ in range(2):
                files = {f"{n}.txt": random.randbytes(random.randrange(1, 2000)).hex().encode() for n in range(2)}
                manifest = self._push(name, files)
                self.wanted |= {manifest.ref: files, f"{name}:latest": files}
                self.needed |= {blob_key(entry): Version.of(manifest).key for entry in manifest.blobs}
            leases.pin(self.store, f"run-{name}", [f"blobs/ab/{number}{'ab' * 31}c" for number in range(5)])
        for ref in self.wanted:
            self._artifacts().pull(ref)
        condemn(self.store, [f"blobs/cd/{'cd' * 32}", f"blobs/ce/{'ce' * 32}"])
        condemn(self.store, [f"blobs/cf/{'cf' * 32}"])

    def _push(self, name: str, files: dict[str, bytes]) -> Manifest:
        folder = self.root / "source"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path, data in files.items():
            (folder / path).write_bytes(data)
        return self._artifacts().push(name, folder, kind="files")

    def _artifacts(self, cache: str = "cache") -> ArtifactStore:
        return ArtifactStore(self.store, self.root / cache, threads=1)

    def one(self, place: str, kind: str, report: Report) -> None:
        """Damages one file, looks, and mends it again."""
        files = sorted(path for path in self.root.glob(PLACES[place]) if path.is_file())
        path, other = self.random.sample(files, 2)
        touched = [path, other] if kind == "swap" else [path]
        saved = {file: file.read_bytes() for file in touched}
        _damage(kind, touched, self.random)
        same = all(file.exists() and file.read_bytes() == data for file, data in saved.items())
        try:
            ends = self._look(place, kind)
        finally:
            for file, data in saved.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.unlink(missing_ok=True)
                file.write_bytes(data)
        end = HARMLESS if same else self._verdict(place, kind, ends)
        report.counts[place, kind, end] += 1
        if end == MISSED or any(isinstance(value, str) for value in ends):
            report.problems.append(f"{kind} of {path.relative_to(self.root)}: {ends}")

    def _look(self, place: str, kind: str) -> list[Any]:
        """What a person gets: an error of ours, True (as it should be), or a text that says what is wrong."""
        cached = place == "cache"
        shutil.rmtree(self.root / "other-cache", ignore_errors=True)
        cache = "cache" if cached else "other-cache"
        pulls = [(ref, to_dest) for ref in self.wanted for to_dest in (True, False)]
        ends = [_end(partial(self._pull, ref, cache, to_dest)) for ref, to_dest in pulls]
        if not cached:
            ends.append(_end(lambda: self._collect(place, kind)))
        if place == "condemned list":
            ends.append(_end(lambda: self._artifacts("other-cache").move_alias("cats", "x", self._digest("cats"))))
        return ends

    def _digest(self, name: str) -> str:
        return next(ref for ref in self.wanted if ref.startswith(f"{name}@")).partition("@")[2]

    def _pull(self, ref: str, cache: str, to_dest: bool) -> Any:
        dest = self.root / "dest" if to_dest else None
        try:
            folder = self._artifacts(cache).pull(ref, dest)
        except TlganError:
            if dest is not None and dest.exists():
                return f"{dest} is there"
            raise
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        shutil.rmtree(self.root / "dest", ignore_errors=True)
        return True if found == self.wanted[ref] else f"{ref} gave other bytes"

    def _collect(self, place: str, kind: str) -> Any:
        """Plans only: what would go must not be needed. A manifest that is gone needs nothing that anyone could know."""
        plan = Collector(self.store, SOON, threads=1).plan(later())
        lost = {info.key for info in plan.blobs} & self.needed.keys()
        if place == "manifest" and kind == "deletion":
            lost = {key for key in lost if (self.root / "store" / self.needed[key]).exists()}
        return f"would delete {sorted(lost)}" if lost else True

    def _verdict(self, place: str, kind: str, ends: Sequence[Any]) -> str:
        errors = any(isinstance(end, TlganError) for end in ends)
        if any(isinstance(end, str) for end in ends):
            return MISSED
        if place == "cache":
            return MISSED if errors else HEALED
        if errors:
            return FOUND
        return MISSED if place in ("blob", "manifest") else HARMLESS


def _end(act: Callable[[], Any]) -> Any:
    try:
        result = act()
        return result if isinstance(result, str) else True
    except TlganError as error:
        return error
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _damage(kind: str, files: Sequence[Path], random: Random) -> None:
    path, data = files[0], files[0].read_bytes()
    at = random.randrange(len(data)) if data else 0
    path.chmod(0o644)
    if kind == "deletion":
        path.unlink()
    elif kind == "truncation":
        path.write_bytes(data[:at])
    elif kind == "extra bytes":
        path.write_bytes(data + random.randbytes(random.randrange(1, 50)))
    elif kind == "bit flip":
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :])
    else:
        other = files[1].read_bytes()
        files[1].chmod(0o644)
        path.write_bytes(other)
        files[1].write_bytes(data)


def run(seed: int, times: int, folder: Path, places: Iterable[str] = PLACES) -> Report:
    """Damages `times` files of a store in the empty `folder`, one after the other: each place in each way in turn."""
    report, attempts = Report(), records.ATTEMPTS
    records.ATTEMPTS = 1  # a directory has no torn reads to wait for
    try:
        with without_fsync():
            damaged = Damaged(folder, Random(seed))
            for place, kind in islice(cycle(product(places, KINDS)), times):
                damaged.one(place, kind, report)
    finally:
        records.ATTEMPTS = attempts
    return report
