"""Feature distillation (Romero et al. 2015; for GANs the strongest baseline of Mo, Cho, Shin 2020, FreezeD): D keeps its features.

The features of both real and generated images, at every block but the last, stay near those the frozen source's D has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.learners.terms import Term, View
from tlgan.models.blocks import Network
from tlgan.transfer.frozen import feature_blocks, features_of, frozen_copy
from tlgan.transfer.mask import freeze_depths
from tlgan.transfer.method import Method


class FeatureDistillation(Method):
    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        return [KeptFeatures(frozen_copy(D), self.spec.option("weight"))]


class KeptFeatures(Term):
    """`weight` times the mean squared difference of features, a mean over blocks."""

    name, side = "feature_distillation", "D"

    def __init__(self, source: Network, weight: float) -> None:
        self.source, self.weight = source, weight
        self.taps = [f"D.{name}" for name in feature_blocks(source)]

    def __call__(self, view: View) -> Tensor:
        assert view.shown_real is not None
        with torch.no_grad():
            kept = features_of(self.source, torch.cat([view.shown_real, view.shown_fake]), view.inputs)
        parts = [(view.features[f"D.{name}"] - value).square().mean() for name, value in kept.items()]
        return torch.stack(parts).mean() * self.weight
