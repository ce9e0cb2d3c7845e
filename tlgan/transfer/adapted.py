"""Methods that train adapters in place of weights, which stay the source's, in the blocks above the freeze depths.

AdaFM (Zhao, Cong, Carin 2020, "On leveraging pretrained GANs for generation with limited data"), here on all of G and with the
biases, scales and shifts that are there already; D trains in full. The paper also grows new top layers.
Few-shot GAN (Robb et al. 2020), the singular values of all weights of G and D and nothing else. Under spectral normalisation
those of the weight before it.
"""

from __future__ import annotations

from torch import nn

from tlgan.models.adapters import Adapter, KernelScaleShift, SingularValues, adapt, adapters
from tlgan.models.blocks import Network
from tlgan.transfer.mask import above, freeze_depths, train_vectors_only
from tlgan.transfer.method import Method


class KernelScaleShifts(Method):
    """AdaFM: a scale and a shift a convolution kernel of G."""

    def prepare(self, G: Network, D: Network) -> None:
        train_vectors_only(G)
        freeze_depths(G, D, self.spec)
        put_adapters(above(G, self.spec.freeze_g), KernelScaleShift, least_dims=4)


class SingularValuesOnly(Method):
    """Few-shot GAN: the singular values of kernels and matrices, nothing else."""

    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)
        for network, depth in ((G, self.spec.freeze_g), (D, self.spec.freeze_d)):
            network.requires_grad_(False)
            put_adapters(above(network, depth), SingularValues, least_dims=2)


def put_adapters(blocks: list[nn.Module], adapter: type[Adapter], least_dims: int) -> None:
    for block in blocks:
        adapt(block, adapter, least_dims)
        for _, put in adapters(block):
            put.requires_grad_(True)
