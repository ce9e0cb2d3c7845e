"""In which order images are shown: row numbers as a function of the position in an endless sequence, whoever asks.

`Shuffled`  one permutation an epoch of all rows: every image once an epoch.
`InLanes`   place `j` of a batch of B is always filled from lane `j`, the rows `[N * j / B, N * (j + 1) / B)`, in an order
            shuffled anew each epoch. Neighbouring places need neighbouring rows: a rank of any number of ranks reads one
            stretch of a dataset that is sharded over nodes, and a batch is the same for every number of them. An epoch has
            N // B batches; where B does not divide N, some lanes leave out one image of it, another one each time.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np

from tlgan.data.select import random_keys
from tlgan.data.source import Int64Array
from tlgan.errors import SpecError

_ORDER_STREAM, _LANE_STREAM = 3, 5


class Order(Protocol):
    def rows(self, first: int, count: int) -> Int64Array:
        """The rows shown at positions `[first, first + count)`, int64 `[count]`."""
        ...


class Shuffled:
    """Of `count` rows. A batch may cross the border of two epochs."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._permutation = lru_cache(maxsize=2)(self._shuffled)

    def rows(self, first: int, count: int) -> Int64Array:
        positions = np.arange(first, first + count)
        epochs = positions // self.count
        pieces = [
            self._permutation(int(epoch))[positions[epochs == epoch] % self.count]
            for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _shuffled(self, epoch: int) -> Int64Array:
        return np.argsort(random_keys(self.count, self.seed, _ORDER_STREAM, epoch), kind="stable")


class InLanes:
    """Of `count` rows, in batches of `batch_size`; the positions asked for lie in one batch."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        check_lanes(count, batch_size)
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.batches = count // batch_size
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def rows(self, first: int, count: int) -> Int64Array:
        batch, lane = divmod(first, self.batch_size)
        epoch, number = divmod(batch, self.batches)
        found: Int64Array = self._epoch(epoch, lane, count)[number]
        return found

    def _shuffled(self, epoch: int, lane: int, count: int) -> Int64Array:
        """[batches of the epoch, lanes]: rows."""
        borders = [border(self.count, self.batch_size, j) for j in range(lane, lane + count + 1)]
        found = np.empty((self.batches, count), np.int64)
        for k, (start, end) in enumerate(pairwise(borders)):
            keys = random_keys(end - start, self.seed, _LANE_STREAM, epoch, lane + k)
            found[:, k] = start + np.argsort(keys, kind="stable")[: self.batches]
        return found


def check_lanes(count: int, batch_size: int) -> None:
    if count < batch_size:
        raise SpecError(
            f"data.sharded: expected at least one image for each place of a batch, received {count} for {batch_size}",
            hint="leave data.sharded out: it is for large sets",
        )


def border(count: int, batch_size: int, lane: int) -> int:
    """The row where a lane begins."""
    return count * lane // batch_size


def stretch(count: int, batch_size: int, rank: int, world_size: int) -> tuple[int, int]:
    """The rows `[start, end)` that a rank reads of `count` in lanes."""
    local = batch_size // world_size
    return border(count, batch_size, rank * local), border(count, batch_size, (rank + 1) * local)
