"""Moving average of the generator's weights (Karras et al. 2018): a half-life in images, so batch size does not matter."""

from __future__ import annotations

import copy

import torch

from tlgan.models.blocks import Network


class Ema:
    """`module` is the averaged network. Parameters are averaged; buffers are copied, on purpose."""

    def __init__(self, network: Network, half_life_nimg: float, rampup: float) -> None:
        self.half_life, self.rampup = half_life_nimg, rampup
        self.module = copy.deepcopy(network).eval().requires_grad_(False)

    def decay(self, nimg: int, new_nimg: int) -> float:
        """Share of the average kept at a step that saw `new_nimg` of all the `nimg` images seen so far.

        The half-life is at most `rampup` of the images seen so far.
        """
        half_life = min(self.half_life, nimg * self.rampup) if self.rampup else self.half_life
        return 0.5 ** (new_nimg / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, network: Network, nimg: int, new_nimg: int) -> None:
        keep = self.decay(nimg, new_nimg)
        averages, weights = list(self.module.parameters()), list(network.parameters())
        torch._foreach_lerp_(averages, weights, 1 - keep)
        for average, buffer in zip(self.module.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)
