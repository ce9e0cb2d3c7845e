"""Batches of a dataset: a pure function of (seed, step), the same for every number of workers.

Global batch `step` covers positions `[step * B, (step + 1) * B)` of an endless sequence, and the dataset's `order` says
which image a position shows: shuffled anew every epoch. Whether position `p` is mirrored is bit `p` of a counter-based
generator. Nothing depends on rank, world size or earlier calls: a run can start at any step.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from tlgan.data.order import Order
from tlgan.data.source import Int64Array, UInt8Array
from tlgan.errors import SpecError

_FLIP_STREAM = 4
PREFETCH = 2  # batches prepared ahead of a GPU


class Rows(Protocol):
    """What batches are made of: a `Dataset`, or a process's `Share` of one."""

    def order(self, batch_size: int, seed: int) -> Order: ...

    def take(self, rows: Int64Array) -> tuple[UInt8Array, Int64Array]: ...


@dataclass
class Batch:
    """`images` float32 `[b, C, H, W]` in [-1, 1]; `labels` int64 `[b]`, -1: none; `indices` int64 `[b]`: rows."""

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass
class _HostBatch:
    images: torch.Tensor  # uint8
    labels: torch.Tensor
    indices: torch.Tensor


class Loader:
    """Rank `r` of `world_size` gets rows `[r * b, (r + 1) * b)` of the global batch, `b = batch_size / world_size`.

    `flip` mirrors half of the images left-right. Raises `SpecError` when the batch can't be divided.
    """

    def __init__(
        self,
        dataset: Rows,
        batch_size: int,
        *,
        seed: int,
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise SpecError(
                f"batch_size {batch_size} can't be divided by {world_size} workers",
                hint=f"choose a multiple of {world_size}",
            )
        if not 0 <= rank < world_size:
            raise SpecError(f"rank {rank} is outside a world of {world_size} workers")
        self.dataset, self.batch_size, self.seed, self.flip = dataset, batch_size, seed, flip
        self.rank, self.local_batch = rank, batch_size // world_size
        self.device = torch.device(device)
        self._order = dataset.order(batch_size, seed)
        self._flip_key = np.random.SeedSequence((seed, _FLIP_STREAM)).generate_state(2, np.uint64)

    def batch(self, step: int) -> Batch:
        """Batch number `step`, counted from 0: this rank's rows."""
        return self._finish(self._gather(step))

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Endless, from `start_step` on. For a GPU a thread gathers the next batches while this one is used."""
        if self.device.type != "cuda":
            while True:
                yield self.batch(start_step)
                start_step += 1
        with _Ahead(self, start_step) as ahead:
            while True:
                yield self._finish(ahead.get())

    def _gather(self, step: int) -> _HostBatch:
        first = step * self.batch_size + self.rank * self.local_batch
        indices = self._order.rows(first, self.local_batch)
        images, labels = self.dataset.take(indices)
        if self.flip:
            mirrored = self._mirrored(first)
            images[mirrored] = images[mirrored][..., ::-1]
        host = _HostBatch(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            torch.from_numpy(indices),
        )
        if self.device.type == "cuda":
            host = _HostBatch(*(tensor.pin_memory() for tensor in vars(host).values()))
        return host

    def _finish(self, host: _HostBatch) -> Batch:
        """uint8 to the device, then scaled there."""
        images, labels, indices = (tensor.to(self.device, non_blocking=True) for tensor in vars(host).values())
        return Batch(images.to(torch.float32).div_(127.5).sub_(1.0), labels, indices)

    def _mirrored(self, first: int) -> npt.NDArray[np.bool_]:
        block, skip = divmod(first, 4)  # Philox gives four words for each value of its counter
        words = np.random.Philox(key=self._flip_key, counter=[block, 0, 0, 0]).random_raw(skip + self.local_batch)
        return (words[skip:] >> np.uint64(63)).astype(np.bool_)


class _Ahead:
    """A thread that keeps up to `PREFETCH` gathered batches; its errors are raised where batches are taken."""

    def __init__(self, loader: Loader, step: int) -> None:
        self._queue: queue.Queue[_HostBatch | Exception] = queue.Queue(maxsize=PREFETCH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(loader, step), daemon=True, name="tlgan-loader")

    def __enter__(self) -> _Ahead:
        self._thread.start()
        return self

    def get(self) -> _HostBatch:
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def _work(self, loader: Loader, step: int) -> None:
        while not self._stop.is_set():
            try:
                item: _HostBatch | Exception = loader._gather(step)
            except Exception as error:
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            step += 1

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
