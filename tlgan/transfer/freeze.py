"""FreezeD (Mo, Cho, Shin 2020) and its counterpart for G: the blocks that carry general features stay as the source left them.

D is frozen from the image side, G from the latent side. Frozen blocks also keep their batch statistics and spectral norms.
"""

from __future__ import annotations

from tlgan.models.blocks import Network
from tlgan.transfer.mask import freeze_first
from tlgan.transfer.method import Method


class Freeze(Method):
    def prepare(self, G: Network, D: Network) -> None:
        freeze_first(D, "d", self.spec.freeze_d)
        freeze_first(G, "g", self.spec.freeze_g)
