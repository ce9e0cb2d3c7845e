"""Trainable masks: what of a network takes gradients. Depths count blocks, never layers."""

from __future__ import annotations

from torch import nn

from tlgan.errors import SpecError
from tlgan.models.blocks import BatchNorm2d, Network
from tlgan.recipe import TransferSpec


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


def freeze_depths(G: Network, D: Network, spec: TransferSpec) -> None:
    """The freeze depths of a transfer section, which most methods can be combined with."""
    freeze_first(D, "d", spec.freeze_d)
    freeze_first(G, "g", spec.freeze_g)


def train_vectors_only(G: Network) -> None:
    """Of `G` its scales, shifts and biases train: what has one dimension, and what a normalisation has for each class."""
    for p in G.parameters():
        p.requires_grad_(p.dim() == 1)
    for module in G.modules():
        if isinstance(module, BatchNorm2d):
            module.requires_grad_(True)


def above(network: Network, depth: int) -> list[nn.Module]:
    """The blocks that are not among the first `depth`."""
    return list(network.blocks.values())[depth:]
