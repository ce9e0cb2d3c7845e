"""APA (Jiang et al. 2021, "Deceive D"): some real images shown to D are generated ones, with a probability that follows D.

D is told less than the truth where it knows too much. The generated images are drawn for this from latents of their own, by
the G of the moment; the authors take those of the last G step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.augment import Params
from tlgan.augment.strength import Strength
from tlgan.recipe import AugmentSpec


class Apa:
    through_penalties = False

    def __init__(self, spec: AugmentSpec) -> None:
        self.strength = Strength(spec)

    def draw(self, count: int, rng: torch.Generator) -> Params:
        return {"pseudo": torch.rand(count, generator=rng)}

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        return x_nchw

    @property
    def deceives(self) -> bool:
        """Whether generated images are wanted in this step; the same on all ranks."""
        return bool(self.strength.p > 0)

    def deceive(self, real: Tensor, pseudo: Tensor, params: Params) -> Tensor:
        """`real` with some images exchanged for those of `pseudo`."""
        exchanged = (params["pseudo"].to(real.device) < self.strength.p)[:, None, None, None]
        return torch.where(exchanged, pseudo.to(real.dtype), real)
