"""Trainable masks: what of a network takes gradients. Depths count blocks, never layers."""

from __future__ import annotations

from tlgan.errors import SpecError
from tlgan.models.blocks import Network


def freeze_first(network: Network, which: str, depth: int) -> None:
    """Freeze the first `depth` blocks (D: from the image side, G: from the latent side). Raises `SpecError` beyond the network."""
    blocks = list(network.blocks.values())
    if depth >= len(blocks):
        raise SpecError(
            f"transfer.freeze_{which}: expected at most {len(blocks) - 1} ({which.upper()} has {len(blocks)} blocks and one "
            f"must stay trainable), received {depth}"
        )
    for block in blocks[:depth]:
        block.requires_grad_(False)
