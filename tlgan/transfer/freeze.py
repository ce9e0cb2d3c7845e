"""FreezeD (Mo, Cho, Shin 2020) and its counterpart for G: the blocks that carry general features stay as the source left them.

D is frozen from the image side, G from the latent side. Frozen blocks also keep their batch statistics and spectral norms.
With `thaw_kimg` they thaw one by one, the one next to those that train first (gradual unfreezing, Howard and Ruder 2018).
"""

from __future__ import annotations

from tlgan.models.blocks import Network
from tlgan.transfer.mask import freeze_first
from tlgan.transfer.method import Method


class Freeze(Method):
    def prepare(self, G: Network, D: Network) -> None:
        """With a thaw, everything trains at some time."""
        self._freeze(0, G, D)
        if self.spec.thaw_kimg:
            G.requires_grad_(True)
            D.requires_grad_(True)

    def stage(self, nimg: int) -> int:
        """How many blocks of each network have thawed."""
        every = self.spec.thaw_kimg
        deepest = max(self.spec.freeze_d, self.spec.freeze_g)
        return min(int(nimg / (every * 1000)), deepest) if every else 0

    def enter(self, stage: int, G: Network, D: Network) -> None:
        if self.spec.thaw_kimg:
            G.requires_grad_(True)
            D.requires_grad_(True)
            self._freeze(stage, G, D)

    def _freeze(self, thawed: int, G: Network, D: Network) -> None:
        freeze_first(D, "d", max(self.spec.freeze_d - thawed, 0))
        freeze_first(G, "g", max(self.spec.freeze_g - thawed, 0))
