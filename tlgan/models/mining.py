"""The miner of MineGAN (Wang et al. 2020): a small network before a generator that moves latents to where the target lies.

It is part of the generator's first block and of its `config`, so every way into the generator passes it. It starts as the
identity, as a residual network whose last layer is zero; the paper's starts at random.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tlgan.models.blocks import Network

SLOPE = 0.2


class Miner(nn.Module):
    """Latents `[N, latent_dim]`, or `[N, latent_dim, 1, 1]`, to latents of the same shape."""

    def __init__(self, latent_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(latent_dim, latent_dim) for _ in range(layers))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, z: Tensor) -> Tensor:
        x = z.flatten(1)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), SLOPE)
        return z + self.layers[-1](x).view_as(z)


def attach_miner(G: Network, layers: int) -> None:
    """Puts a miner before the first block of `G`, whatever calls that."""
    entrance = _entrance(G)
    entrance.add_module("miner", Miner(G.latent_dim, layers))
    entrance.register_forward_pre_hook(_mine)
    G.config = {**G.config, "miner": {"layers": layers}}


def _mine(block: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (block.miner(inputs[0]), *inputs[1:])


def miner_of(G: Network) -> Miner | None:
    return getattr(_entrance(G), "miner", None)


def _entrance(G: Network) -> nn.Module:
    """The module that latents enter first."""
    module = next(iter(G.blocks.values()))
    while isinstance(module, nn.Sequential):
        module = module[0]
    return module
