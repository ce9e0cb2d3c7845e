"""L2-SP (Li, Grandvalet, Davoine 2018): alpha/2 * |w - w_source|^2 in place of weight decay, for both networks.

All layers have a start in the source, so the paper's second term, plain decay of new layers, has nothing to act on.
"""

from __future__ import annotations

from tlgan.distributed import World
from tlgan.learners.terms import Term
from tlgan.models.blocks import Network
from tlgan.transfer.anchors import WeightAnchor
from tlgan.transfer.mask import freeze_depths
from tlgan.transfer.method import Method


class L2SP(Method):
    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        alpha = self.spec.option("weight")
        return [WeightAnchor(f"l2_sp_{which.lower()}", which, net, alpha / 2) for which, net in (("G", G), ("D", D))]
