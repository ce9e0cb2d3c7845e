"""Batch statistics adaptation (Noguchi, Harada 2019): of G, only the scales and shifts of its normalisations train, and its biases.

D trains in full (above its freeze depth), for the adversarial loss; the paper itself uses a perceptual loss without a D.
"""

from __future__ import annotations

from tlgan.models.blocks import Network
from tlgan.transfer.mask import freeze_depths, train_vectors_only
from tlgan.transfer.method import Method


class ScaleShift(Method):
    def prepare(self, G: Network, D: Network) -> None:
        train_vectors_only(G)
        freeze_depths(G, D, self.spec)
