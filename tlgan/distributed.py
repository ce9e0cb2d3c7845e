"""What a training process knows of its peers. Works the same alone, under torchrun and inside a Ray Train worker.

One decision lives here: which averages are taken over ranks. Gradients are averaged by DistributedDataParallel,
batch statistics by `tlgan.models.blocks.BatchNorm2d`, logged numbers by `mean_over_ranks`.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_KNOWN = inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers"
"""Newer versions of torch warn of the second name."""


class Parallel(DistributedDataParallel):
    """`DistributedDataParallel` without what it asks `torch.compile` about: that takes two seconds of every rank to import."""

    def __init__(self, *given: Any, **more: Any) -> None:
        with _without_compiler():
            super().__init__(*given, **more)

    if hasattr(DistributedDataParallel, "_inside_ddp_forward"):
        _inside_ddp_forward = contextmanager(inspect.unwrap(DistributedDataParallel._inside_ddp_forward))


@contextmanager
def _without_compiler() -> Iterator[None]:
    """`torch._dynamo`, if nobody has imported it, gives its default answer instead of being imported."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_in = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))
    torch.__dict__["_dynamo"] = stand_in
    try:
        yield
    finally:
        if torch.__dict__["_dynamo"] is stand_in:  # else somebody has imported it meanwhile
            del torch.__dict__["_dynamo"]


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes, computing on `device`."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @staticmethod
    def current(device: torch.device | str | None = None) -> World:
        """The world of the initialised process group, or a world of one."""
        if device is None:
            local_rank = int(os.environ.get("LOCAL_RANK", "0"))
            device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            return World(dist.get_rank(), dist.get_world_size(), torch.device(device))
        return World(device=torch.device(device))

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` with gradients averaged over ranks. Buffers stay local: no module's buffers differ between ranks."""
        if self.size == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        ids = [self.device] if self.device.type == "cuda" else None
        local_buffers: dict[str, Any] = {_BUFFERS: False}
        return Parallel(module, device_ids=ids, gradient_as_bucket_view=True, **local_buffers)

    def slice(self, rows: Tensor) -> Tensor:
        """This rank's rows of a tensor drawn for the global batch `[B, ...] -> [B / size, ...]`."""
        share = len(rows) // self.size
        return rows[self.rank * share : (self.rank + 1) * share]

    def mean_over_ranks(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Averages of scalar tensors over all ranks, as floats; one collective, one synchronisation."""
        if not values:
            return {}
        stacked = torch.stack([v.detach().float().reshape(()) for v in values.values()])
        if self.size > 1:
            dist.all_reduce(stacked)
            stacked /= self.size
        return dict(zip(values, stacked.tolist(), strict=True))

    def mean(self, values: Tensor) -> Tensor:
        """The average of a tensor over all ranks, without gradient, on the device; one collective."""
        return self.sum(values) / self.size if self.size > 1 else self.sum(values)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, likewise."""
        values = values.detach().clone()
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Every rank's rows (equal shapes), in rank order, on every rank."""
        if self.size == 1:
            return [rows]
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return parts

    def agree(self, flag: bool) -> bool:
        """True on all ranks when it is True on any."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def told_by_main(self, text: str) -> str:
        """Rank 0's `text` on every rank, cut to 1 kB."""
        if self.size == 1:
            return text
        row = torch.zeros(1024, dtype=torch.uint8)
        own = text.encode()[: len(row)]
        row[: len(own)] = torch.tensor(list(own), dtype=torch.uint8)
        return bytes(self.gather_rows(row.to(self.device))[0].tolist()).rstrip(b"\0").decode(errors="ignore")

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the process group, all ranks together; for those who started it. Nothing of it may be used after.

        gloo's threads end with the group only if nothing holds on to it, and wrapped networks, which are part of
        reference cycles, do. A process that exits with such threads alive may abort ("terminate called ...").
        """
        gc.collect()
        self.barrier()
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
