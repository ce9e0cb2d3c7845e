"""Adversarial objectives on logits `[N]`. Each has `d(real, fake)` and `g(fake)`, both means over the batch, to be minimised."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class Minimax:
    """Goodfellow et al. 2014, the original formula: G minimises E log(1 - D(fake)). Saturates when D is sure."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -F.softplus(fake).mean()


class NonSaturating(Minimax):
    """Goodfellow et al. 2014, the practical form: G minimises -E log D(fake)."""

    def g(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class LeastSquares:
    """LSGAN (Mao et al. 2017) with labels 0 and 1 and the paper's factor 1/2."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def g(self, fake: Tensor) -> Tensor:
        return 0.5 * (fake - 1).square().mean()


class Hinge:
    """Lim and Ye 2017; Miyato et al. 2018."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein:
    """Arjovsky, Chintala, Bottou 2017. Needs a Lipschitz critic: the penalty `gp` or spectral normalisation."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def g(self, fake: Tensor) -> Tensor:
        return -fake.mean()
