"""Plain fine-tuning (Wang et al. 2018, "Transferring GANs"): every parameter of both networks trains."""

from __future__ import annotations

from tlgan.models.blocks import Network
from tlgan.recipe import TransferSpec


class Finetune:
    def __init__(self, spec: TransferSpec) -> None:
        pass

    def prepare(self, G: Network, D: Network) -> None:
        """Leaves everything trainable. Freeze depths have no meaning for this method and are not read."""
