"""Mirrorings as the only augmentation: D sees half of the images left to right, or upside down, or both.

Unlike `data.flip`, which mirrors real images, this happens to generated ones too, so G need not learn to draw mirrored images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.augment import Params
from tlgan.recipe import AugmentSpec

AXES = {"xflip": 3, "yflip": 2}


class Flips:
    strength = None
    through_penalties = False

    def __init__(self, spec: AugmentSpec) -> None:
        self.policy = spec.policy or ["xflip"]

    def draw(self, count: int, rng: torch.Generator) -> Params:
        return {axis: torch.rand(count, generator=rng) for axis in self.policy}

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        for axis in self.policy:
            mirrored = (params[axis] < 0.5).to(x_nchw.device)[:, None, None, None]
            x_nchw = torch.where(mirrored, x_nchw.flip(AXES[axis]), x_nchw)
        return x_nchw
