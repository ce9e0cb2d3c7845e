"""Feature matching (Salimans et al. 2016): generated images have, on average, the features of real ones.

The features are those of the frozen source discriminator, so what is matched does not move; in the paper they are those of the
discriminator in training, and of one layer. Means are of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.learners.terms import Term, View
from tlgan.models.blocks import Network
from tlgan.transfer.frozen import features_of, frozen_copy
from tlgan.transfer.mask import freeze_depths
from tlgan.transfer.method import Method


class FeatureMatching(Method):
    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        return [MeanFeatures(frozen_copy(D), self.spec.option("weight"), world)]


class MeanFeatures(Term):
    """`weight` times the squared distance of mean features, a mean over each block's features and over blocks."""

    name, side = "feature_matching", "G"

    def __init__(self, source: Network, weight: float, world: World) -> None:
        self.source, self.weight, self.world = source, weight, world

    def __call__(self, view: View) -> Tensor:
        with torch.no_grad():
            real = features_of(self.source, view.real, view.inputs)
        fake = features_of(self.source, view.fake, view.inputs)
        parts = []
        for name, features in fake.items():
            own = features.mean(0)
            everyones = own + (
                self.world.mean(own) - own.detach()
            )  # its value is global, its gradient this rank's share
            parts.append((everyones - self.world.mean(real[name].mean(0))).square().mean())
        return torch.stack(parts).mean() * self.weight
