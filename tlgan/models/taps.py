"""Looking at what the blocks of a network give while it works. Every block of every network can be looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tlgan.models.blocks import Network


@contextmanager
def tapped(network: Network, blocks: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """In the block, each forward of `network` leaves the outputs of `blocks` in the dictionary: maps `[N, C, H, W]` or rows.

    Of a block that also hands on a picture (StyleGAN2's generator), the map.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [network.blocks[name].register_forward_hook(keep(name)) for name in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
