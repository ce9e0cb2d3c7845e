"""Adaptation-aware kernel modulation (AdAM; Zhao, Chandrasegaran, Abdollahzadeh, Cheung 2022), of G's and D's convolutions.

Probing: for `probe_kimg` the source adapts by modulating every kernel in low rank, and nothing else. The Fisher information of
the modulations then tells which kernels matter to the *target*. Training starts again from the source: of each network the
`modulated` share of kernels with most information is kept and modulated, everything else is fine-tuned.

Departures: a kernel's information is that of its row of the modulation's left factor, the right one being shared by a layer;
D's is taken on one batch of the target. Under spectral normalisation the weight before it is modulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tlgan.data.loader import Batch
from tlgan.distributed import World
from tlgan.learners.terms import Term
from tlgan.models import seeded
from tlgan.models.adapters import KernelModulation, adapt, adapters
from tlgan.models.blocks import Network
from tlgan.transfer.fisher import discriminator_fisher, generator_fisher
from tlgan.transfer.mask import above, freeze_depths
from tlgan.transfer.method import Method

if TYPE_CHECKING:
    from tlgan.learners.gan import GanLearner


class ModulatedKernels(Method):
    staged = True  # a checkpoint at the end of the probing is from before the choice

    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)
        rank = self.spec.option("rank")
        with seeded(self.recipe.train.seed):
            for block in [*above(G, self.spec.freeze_g), *above(D, self.spec.freeze_d)]:
                adapt(block, lambda weight, axis: KernelModulation(weight, axis, rank))

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        """None, but the source is remembered: after the probing, training starts from it again."""
        self.source = [{name: t.detach().clone() for name, t in net.state_dict().items()} for net in (G, D)]
        return []

    def stage(self, nimg: int) -> int:
        return int(nimg >= self.spec.option("probe_kimg") * 1000)

    def enter(self, stage: int, G: Network, D: Network) -> None:
        for network in (G, D):
            network.requires_grad_(stage == 1)
        freeze_depths(G, D, self.spec)
        for network in (G, D):
            for _, adapter in adapters(network):
                adapter.requires_grad_(True)

    def cross(self, stage: int, learner: GanLearner, batch: Batch) -> None:
        of_G, of_D = self.information(learner, batch)
        for network, state in zip((learner.G, learner.D), self.source, strict=True):
            network.load_state_dict(state)
        choose(learner.G, of_G, self.spec.option("modulated"))
        choose(learner.D, of_D, self.spec.option("modulated"))
        learner.restart()

    def information(self, learner: GanLearner, batch: Batch) -> list[dict[str, Tensor]]:
        """Of each kernel `[o]` of G and of D, by the name of the module."""
        G, D, world = learner.G, learner.D, learner.world
        count, seed = self.spec.option("fisher_samples"), self.recipe.train.seed
        rows = [{f"{name}.parametrizations.weight.0.A" for name, _ in adapters(network)} for network in (G, D)]
        found = [
            generator_fisher(G, D, rows[0], count, seed, world),
            discriminator_fisher(G, D, rows[1], batch, count, seed, world),
        ]
        return [{name.partition(".parametrizations.")[0]: value.mean(1) for name, value in of.items()} for of in found]


def choose(network: Network, information: dict[str, Tensor], share: float) -> None:
    """Chooses the `share` of all kernels of a network with most information, whatever layers they are in; of equals the first."""
    everything = torch.cat(list(information.values()))
    kept = torch.zeros_like(everything, dtype=torch.bool)
    kept[everything.argsort(descending=True, stable=True)[: round(share * len(everything))]] = True
    parts = dict(zip(information, kept.split([len(v) for v in information.values()]), strict=True))
    for name, adapter in adapters(network):
        assert isinstance(adapter, KernelModulation)
        adapter.chosen.copy_(parts[name])
