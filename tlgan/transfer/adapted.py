"""Methods that train adapters of G in place of its weights, which stay the source's; D trains in full, above its freeze depth.

AdaFM (Zhao, Cong, Carin 2020, "On leveraging pretrained GANs for generation with limited data"), here on every block above
`freeze_g` and with the biases, scales and shifts that are there already; the paper also grows new top layers.
Few-shot GAN (Robb et al. 2020), singular values of all weights; the paper adapts D in the same way.
"""

from __future__ import annotations

from typing import ClassVar

from tlgan.models.adapters import Adapter, KernelScaleShift, SingularValues, adapt, adapters
from tlgan.models.blocks import Network
from tlgan.transfer.mask import above, freeze_depths
from tlgan.transfer.method import Method


class _Adapted(Method):
    """`adapter` on weights of at least `least_dims` dimensions; vectors train too if `vectors`."""

    adapter: ClassVar[type[Adapter]]
    least_dims: ClassVar[int]
    vectors: ClassVar[bool]

    def prepare(self, G: Network, D: Network) -> None:
        for p in G.parameters():
            p.requires_grad_(self.vectors and p.dim() == 1)
        freeze_depths(G, D, self.spec)
        for block in above(G, self.spec.freeze_g):
            adapt(block, self.adapter, self.least_dims)
        for _, adapter in adapters(G):
            adapter.requires_grad_(True)


class KernelScaleShifts(_Adapted):
    """AdaFM: a scale and a shift a convolution kernel."""

    adapter, least_dims, vectors = KernelScaleShift, 4, True


class SingularValuesOnly(_Adapted):
    """Few-shot GAN: the singular values of kernels and matrices, nothing else."""

    adapter, least_dims, vectors = SingularValues, 2, False
