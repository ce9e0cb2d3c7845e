"""A packed dataset of which a process reads one stretch of rows, and has no more than the shards these lie in.

For sets that are too large to be on every node. The order of images (`order.InLanes`) fits: whatever the number of ranks,
each shows rows of its own stretch only. The rows must have been shuffled before they were packed, or a rank would see the
images of a few classes.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tlgan.canonical import digest_of
from tlgan.data import cache_root
from tlgan.data.cache import cached, code_digest, drop_unused
from tlgan.data.dataset import Dataset, class_counts, materialise, opened
from tlgan.data.order import InLanes, Order, stretch
from tlgan.data.parquet import ParquetSource
from tlgan.data.source import Int64Array, UInt8Array
from tlgan.errors import DataError, SpecError
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution, sides

FORMAT = 1
AHEAD = 4  # shards fetched and decoded at a time
UNUSED = 3600.0
SPARE_FILES = 1024


@dataclass(frozen=True)
class Shards:
    """What is known of a packed dataset without its files; `rows` are those of each shard."""

    facts: dict[str, Any]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, facts: dict[str, Any], what: str) -> Shards:
        """From the facts that `write_parquet` returned. Raises `SpecError` when it was packed in another way."""
        if not facts.get("shuffled") or "shard_rows" not in facts:
            raise SpecError(
                f"data.sharded: {what} was packed in the order of its source, so each worker would see a part of the classes",
                hint="pack its source anew by `tlgan data pack ... --shuffle` (`tlgan pull` makes a folder of an artifact)",
            )
        return cls(facts, tuple(facts["shard_rows"]))

    def check(self, resolution: Resolution, channels: int | None) -> None:
        """Raises `SpecError` when the images are asked for in another size than that of the pack."""
        packed, depth = self.facts["resolution"], self.facts["channels"]
        if sides(packed) != sides(resolution) or channels not in (None, depth):
            raise SpecError(
                f"data.sharded: the images are packed at {packed} px with {depth} channels, and asked for at {resolution} px "
                f"with {channels or depth}",
                hint="pack them as they are trained: `tlgan data pack ... --shuffle -s resolution=N -s channels=C`",
            )

    def needed(self, batch_size: int, rank: int, world_size: int) -> list[int]:
        """Numbers of the shards that a rank reads from."""
        first, last = stretch(self.facts["count"], batch_size, rank, world_size)
        ends = list(accumulate(self.rows))
        return [k for k, end in enumerate(ends) if end > first and end - self.rows[k] < last]


@dataclass(frozen=True)
class Share:
    """What a rank has of a sharded dataset, for a `Loader`: whole shards, each with the number of its first row.

    Without any it still answers what the whole is like. `len` is that of the whole.
    """

    shards: Shards
    pieces: Sequence[tuple[int, Dataset]] = field(default=())

    def __len__(self) -> int:
        return int(self.shards.facts["count"])

    @property
    def facts(self) -> dict[str, Any]:
        return {name: self.shards.facts[name] for name in (*_ABOUT, "skipped") if name in self.shards.facts}

    @property
    def resolution(self) -> Resolution:
        found: Resolution = self.shards.facts["resolution"]
        return found

    @property
    def channels(self) -> int:
        return int(self.shards.facts["channels"])

    @property
    def digest(self) -> str:
        return str(self.shards.facts["digest"])

    def classes(self) -> dict[str, int]:
        """As `Dataset.classes`."""
        counts: dict[str, int] = self.shards.facts["labels"]
        names = self.pieces[0][1].label_names if self.pieces else list(counts)
        return class_counts({name: counts[name] for name in names}, len(self))

    def order(self, batch_size: int, seed: int) -> Order:
        return InLanes(len(self), batch_size, seed)

    def take(self, rows: Int64Array) -> tuple[UInt8Array, Int64Array]:
        """Images and labels of some rows, by their number in the whole."""
        images = np.empty((len(rows), *self.pieces[0][1].images.shape[1:]), np.uint8)
        labels = np.empty(len(rows), np.int64)
        starts = [start for start, _ in self.pieces]
        piece_of = np.array([bisect.bisect_right(starts, row) - 1 for row in rows])
        for k in np.unique(piece_of):
            start, piece = self.pieces[k]
            here = piece_of == k
            images[here], labels[here] = piece.take(rows[here] - start)
        return images, labels


_ABOUT = ("count", "resolution", "channels", "digest", "labels")


def open_share(
    shards: Shards, needed: Sequence[int], fetch: Callable[[int], Path], cache_dir: Path | None = None
) -> Share:
    """The share that lies in some shards, each decoded once into the cache; `fetch` gives the file of one that is not there.

    Other shards of the same dataset that nobody opened for `UNUSED` seconds go. Raises `DataError`.
    """
    starts = [0, *accumulate(shards.rows)]
    root = (cache_dir or cache_root()) / "datasets" / f"shards-{shards.facts['digest'][:32]}"
    _allow_files(len(needed))
    with ThreadPoolExecutor(max_workers=AHEAD) as pool:
        pieces = list(pool.map(lambda k: (starts[k], _piece(fetch, shards, k, starts[k], root)), sorted(needed)))
    drop_unused(root, UNUSED)
    return Share(shards, pieces)


def _piece(fetch: Callable[[int], Path], shards: Shards, number: int, start: int, root: Path) -> Dataset:
    size, channels = shards.facts["resolution"], shards.facts["channels"]
    code = code_digest(ParquetSource.__module__, "tlgan.data.image", Dataset.__module__, __name__)
    rows = [start, start + shards.rows[number]]
    key = digest_of({"format": FORMAT, "code": code, "rows": rows, "size": size, "channels": channels})[:32]

    def build(into: Path) -> None:
        materialise(_Shard(fetch(number)), size, channels, into)

    piece = opened(cached(root, key, build))
    os.utime(root / key)
    if len(piece) != shards.rows[number]:
        raise DataError(
            f"shard {number} gives {len(piece)} of its {shards.rows[number]} images", hint="pack the dataset anew"
        )
    return piece


def _allow_files(count: int) -> None:
    """Every shard is a memory map, which holds a file open: as many as the system lets this process have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES if hard == resource.RLIM_INFINITY else min(count + SPARE_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Shard(ParquetSource):
    """One file of many."""

    whole = False

    def __init__(self, file: Path) -> None:
        super().__init__(DataSpec(source="parquet", path=str(file)))
        if self.packed is None:
            raise DataError(f"{file} was not written by tlgan data pack")

    def fingerprint(self) -> dict[str, Any]:
        return {"shard of": self.packed}
