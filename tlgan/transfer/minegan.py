"""MineGAN (Wang et al. 2020): a miner before G learns from which latents the source already draws images like the target's.

Two stages, as in the paper: of G the miner alone trains for `miner_kimg`, while D adapts; then everything trains. The miner's
gradients are cleared at every step like all others; in the authors' code they add up. The miner is published with G.
"""

from __future__ import annotations

from tlgan.models import seeded
from tlgan.models.blocks import Network
from tlgan.models.mining import attach_miner, miner_of
from tlgan.transfer.mask import freeze_depths
from tlgan.transfer.method import Method


class MineGan(Method):
    def prepare(self, G: Network, D: Network) -> None:
        """A parent that was mined itself keeps its miner."""
        freeze_depths(G, D, self.spec)
        if miner_of(G) is None:
            with seeded(self.recipe.train.seed):
                attach_miner(G, self.spec.option("miner_layers"))
        train_miner(G)

    def stage(self, nimg: int) -> int:
        return int(nimg >= self.spec.option("miner_kimg") * 1000)

    def enter(self, stage: int, G: Network, D: Network) -> None:
        G.requires_grad_(stage == 1)
        if stage == 1:
            freeze_depths(G, D, self.spec)
        train_miner(G)


def train_miner(G: Network) -> None:
    miner = miner_of(G)
    assert miner is not None
    miner.requires_grad_(True)
