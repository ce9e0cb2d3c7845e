"""Plain fine-tuning (Wang et al. 2018, "Transferring GANs"): every parameter of both networks trains."""

from __future__ import annotations

from tlgan.transfer.method import Method


class Finetune(Method):
    """Leaves everything trainable. Freeze depths have no meaning for this method and are not read."""
