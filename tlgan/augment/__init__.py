"""Augmentations shown to D in place of the images, real and generated alike.

An augmentation draws its parameters for the whole global batch, `draw(count, rng) -> {name: [count, ...]}`, and applies the rank's
rows of them, `__call__(x, params)`: what a sample undergoes does not depend on the number of workers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan import registry
from tlgan.recipe import AugmentSpec

Params = dict[str, Tensor]


class Identity:
    """No augmentation."""

    def __init__(self, spec: AugmentSpec) -> None:
        pass

    def draw(self, count: int, rng: torch.Generator) -> Params:
        return {}

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        return x_nchw


def build_augment(spec: AugmentSpec):
    return registry.AUGMENTS.load(spec.name)(spec)
