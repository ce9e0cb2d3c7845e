"""Frozen mapping: latents lead to the same styles as in the source (as in Pinkney and Adler 2020); the synthesis adapts.

For generators with a mapping network; it is their first block. `freeze_g` counts it, so depths of 0 and 1 are the same.
"""

from __future__ import annotations

from tlgan.models.blocks import Network
from tlgan.transfer.mask import freeze_first
from tlgan.transfer.method import Method


class FreezeMapping(Method):
    def prepare(self, G: Network, D: Network) -> None:
        assert next(iter(G.blocks)) == "mapping"
        freeze_first(D, "d", self.spec.freeze_d)
        freeze_first(G, "g", max(1, self.spec.freeze_g))
