"""Augmentations shown to D in place of the images, real and generated alike.

An augmentation draws its parameters for the whole global batch, `draw(count, rng) -> {name: [count, ...]}`, and applies the rank's
rows of them, `__call__(x, params)`: what a sample undergoes does not depend on the number of workers.

`strength` is None, or what moves the augmentation's probability with D's logits. `through_penalties`: gradient penalties
are taken with respect to the images before they are augmented, as the augmentation's authors do, and not after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from tlgan import registry
from tlgan.recipe import AugmentSpec

if TYPE_CHECKING:
    from tlgan.augment.strength import Strength

Params = dict[str, Tensor]


class Augment(Protocol):
    strength: Strength | None
    through_penalties: bool

    def draw(self, count: int, rng: torch.Generator) -> Params: ...

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor: ...


class Identity:
    """No augmentation."""

    strength = None
    through_penalties = False

    def __init__(self, spec: AugmentSpec) -> None:
        pass

    def draw(self, count: int, rng: torch.Generator) -> Params:
        return {}

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        return x_nchw


def build_augment(spec: AugmentSpec) -> Augment:
    augment: Augment = registry.AUGMENTS.load(spec.name)(spec)
    return augment
