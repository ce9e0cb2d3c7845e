"""A packed dataset of which a process reads one stretch of rows, and has no more than the shards these lie in.

For sets that are too large to be on every node. The order of images (`order.InLanes`) fits: whatever the number of ranks,
each shows rows of its own stretch only. The rows must have been shuffled before they were packed, or a rank would see the
images of a few classes.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tlgan.canonical import digest_of
from tlgan.data import cache_root
from tlgan.data.cache import cached, code_digest
from tlgan.data.dataset import Dataset, class_counts, materialise, opened
from tlgan.data.order import InLanes, Order, stretch
from tlgan.data.parquet import ParquetSource
from tlgan.data.source import Int64Array, UInt8Array
from tlgan.errors import DataError, SpecError
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution, sides

FORMAT = 1


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
                hint="pack it anew by `tlgan data pack ... --shuffle`",
            )
        return cls(facts, tuple(facts["shard_rows"]))

    def check(self, resolution: Resolution, channels: int | None) -> None:
        """Raises `SpecError` when the images are asked for in another size than that of the pack."""
        packed, depth = self.facts["resolution"], self.facts["channels"]
        if sides(packed) != sides(resolution) or channels not in (None, depth):
            raise SpecError(
                f"data.sharded: the images are packed at {packed} px with {depth} channels, and asked for at {resolution} px "
                f"with {channels or depth}",
                hint="pack them in the size they are trained in: `tlgan data pack ... --shuffle -s resolution=N`",
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


def open_share(shards: Shards, files: Mapping[int, Path], cache_dir: Path | None = None) -> Share:
    """The share that lies in these shards' files, decoded once into the cache. Raises `DataError`."""
    starts = [0, *accumulate(shards.rows)]
    root = (cache_dir or cache_root()) / "datasets"
    pieces = [(starts[k], _piece(file, shards, k, starts[k], root)) for k, file in sorted(files.items())]
    return Share(shards, pieces)


def _piece(file: Path, shards: Shards, number: int, start: int, root: Path) -> Dataset:
    size, channels = shards.facts["resolution"], shards.facts["channels"]
    code = code_digest(ParquetSource.__module__, "tlgan.data.image", Dataset.__module__, __name__)
    of = {"digest": shards.facts["digest"], "rows": [start, start + shards.rows[number]]}
    key = digest_of({"format": FORMAT, "code": code, "shard": of, "size": size, "channels": channels})[:32]
    piece = opened(cached(root, key, lambda into: materialise(_Shard(file), size, channels, into)))
    if len(piece) != shards.rows[number]:
        raise DataError(
            f"{file} gives {len(piece)} of the {shards.rows[number]} images of shard {number}",
            hint="pack the dataset anew",
        )
    return piece


class _Shard(ParquetSource):
    """One file of many."""

    whole = False

    def __init__(self, file: Path) -> None:
        super().__init__(DataSpec(source="parquet", path=str(file)))
        if self.packed is None:
            raise DataError(f"{file} was not written by tlgan data pack")

    def fingerprint(self) -> dict[str, Any]:
        return {"shard of": self.packed}
