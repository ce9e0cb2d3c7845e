"""Few-shot adaptation with elastic weight consolidation (Li et al. 2020): G's weights are held by their Fisher information.

Departure: the information is divided by its mean, so that `weight` means the same on every network; the paper's 5e8 belongs to
the scale of its networks. Computed anew, and equal, when a training is resumed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.learners.terms import Term
from tlgan.models.blocks import Network
from tlgan.transfer.anchors import WeightAnchor
from tlgan.transfer.fisher import generator_fisher
from tlgan.transfer.mask import freeze_depths
from tlgan.transfer.method import Method


class ElasticWeights(Method):
    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        names = {name for name, p in G.named_parameters() if p.requires_grad}
        found = generator_fisher(G, D, names, self.spec.option("fisher_samples"), self.recipe.train.seed, world)
        return [WeightAnchor("ewc", "G", G, self.spec.option("weight"), of_mean_one(found))]


def of_mean_one(information: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same proportions, with a mean of one over all numbers."""
    mean = torch.cat([value.flatten() for value in information.values()]).double().mean().float()
    return {name: value / mean.clamp_min(torch.finfo(torch.float32).tiny) for name, value in information.items()}
