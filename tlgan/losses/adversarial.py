"""Adversarial objectives on logits `[N]`. Each has `d(real, fake)` and `g(fake)`, both means over the batch, to be minimised.

`paired`: G's term compares with real images, `g(fake, real)`. `relative`: only differences of logits mean something, the sign of
one by itself does not.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class Objective:
    paired = relative = False


class Minimax(Objective):
    """Goodfellow et al. 2014, the original formula: G minimises E log(1 - D(fake)). Saturates when D is sure."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -F.softplus(fake).mean()


class NonSaturating(Minimax):
    """Goodfellow et al. 2014, the practical form: G minimises -E log D(fake)."""

    def g(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class LeastSquares(Objective):
    """LSGAN (Mao et al. 2017) with labels 0 and 1 and the paper's factor 1/2."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def g(self, fake: Tensor) -> Tensor:
        return 0.5 * (fake - 1).square().mean()


class Hinge(Objective):
    """Lim and Ye 2017; Miyato et al. 2018."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein(Objective):
    """Arjovsky, Chintala, Bottou 2017. Needs a Lipschitz critic: the penalty `gp` or spectral normalisation."""

    relative = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def g(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Relativistic(Objective):
    """Relativistic pairing (Jolicoeur-Martineau 2018; Huang et al. 2024, R3GAN): real image i against generated image i.

    Converges, with R1 and R2 together, where the other objectives can oscillate.
    """

    paired = relative = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real).mean()

    def g(self, fake: Tensor, real: Tensor) -> Tensor:
        return F.softplus(real - fake).mean()
