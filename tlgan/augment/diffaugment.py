"""DiffAugment (Zhao et al. 2020): differentiable colour, translation and cutout with the paper's ranges.

Built of arithmetic and gathers along one axis, so it can be differentiated twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tlgan.augment import Params
from tlgan.recipe import AugmentSpec

SHIFT = 1 / 8  # largest translation, as a share of the side
HOLE = 1 / 2  # side of the cutout, as a share of the side


class DiffAugment:
    def __init__(self, spec: AugmentSpec) -> None:
        self.policy = list(spec.policy)

    def draw(self, count: int, rng: torch.Generator) -> Params:
        """Uniform numbers in [0, 1) for each effect of the policy."""
        sizes = {"color": 3, "translation": 2, "cutout": 2}
        return {effect: torch.rand(count, sizes[effect], generator=rng) for effect in self.policy}

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        for effect in self.policy:
            x_nchw = EFFECTS[effect](x_nchw, params[effect].to(x_nchw.device))
        return x_nchw


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness +-0.5, saturation 0..2, contrast 0.5..1.5."""
    brightness, saturation, contrast = (u[:, i, None, None, None].to(x.dtype) for i in range(3))
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (saturation * 2) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (contrast + 0.5) + level


def translation(x: Tensor, u: Tensor) -> Tensor:
    """Shifts by up to an eighth of the side, filled with zeros as in the paper."""
    side = x.shape[-1]
    reach = int(side * SHIFT + 0.5)
    shift = (u * (2 * reach + 1)).floor().long() - reach
    padded = F.pad(x, (reach, reach, reach, reach))
    steps = torch.arange(side, device=x.device) + reach
    rows = (steps + shift[:, :1])[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3])
    cols = (steps + shift[:, 1:])[:, None, None, :].expand(-1, x.shape[1], side, -1)
    return padded.gather(2, rows).gather(3, cols)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """A square hole of half the side, centred anywhere in the image, filled with zeros."""
    side = x.shape[-1]
    hole = int(side * HOLE + 0.5)
    centre = (u * (side + 1 - hole % 2)).floor()
    steps = torch.arange(side, device=x.device)
    inside = [(steps >= c - hole // 2) & (steps < c - hole // 2 + hole) for c in (centre[:, :1], centre[:, 1:])]
    keep = ~(inside[0][:, :, None] & inside[1][:, None, :])
    return x * keep[:, None].to(x.dtype)


EFFECTS = {"color": color, "translation": translation, "cutout": cutout}
