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
    strength = None
    through_penalties = False

    def __init__(self, spec: AugmentSpec) -> None:
        self.policy = list(spec.policy or EFFECTS)

    def draw(self, count: int, rng: torch.Generator) -> Params:
        """Uniform numbers in [0, 1) for each effect of the policy."""
        sizes = {"color": 3, "translation": 2, "cutout": 2}
        return {effect: torch.rand(count, sizes[effect], generator=rng) for effect in self.policy}

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        for effect in self.policy:
            x_nchw = EFFECTS[effect](x_nchw, params[effect].to(x_nchw.device))
        return x_nchw


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness +-0.5, saturation 0..2, contrast 0.5..1.5. Alpha, in images of 2 or 4 channels, stays as it is."""
    if x.shape[1] in (2, 4):
        return torch.cat([color(x[:, :-1], u), x[:, -1:]], 1)
    brightness, saturation, contrast = (u[:, i, None, None, None].to(x.dtype) for i in range(3))
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (saturation * 2) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (contrast + 0.5) + level


def translation(x: Tensor, u: Tensor) -> Tensor:
    """Shifts by up to an eighth of the side, filled with zeros as in the paper."""
    height, width = x.shape[2:]
    down, across = (int(side * SHIFT + 0.5) for side in (height, width))
    reach = torch.tensor([down, across], device=x.device)
    shift = (u * (2 * reach + 1)).floor().long() - reach
    padded = F.pad(x, (across, across, down, down))
    rows = torch.arange(height, device=x.device) + down + shift[:, :1]
    cols = torch.arange(width, device=x.device) + across + shift[:, 1:]
    rows = rows[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3])
    return padded.gather(2, rows).gather(3, cols[:, None, None, :].expand(-1, x.shape[1], height, -1))


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """A hole of half of each side, centred anywhere in the image, filled with zeros."""
    inside = []
    for side, share in zip(x.shape[2:], u.unbind(1), strict=True):
        hole = int(side * HOLE + 0.5)
        first = (share[:, None] * (side + 1 - hole % 2)).floor() - hole // 2
        steps = torch.arange(side, device=x.device)
        inside.append((steps >= first) & (steps < first + hole))
    keep = ~(inside[0][:, :, None] & inside[1][:, None, :])
    return x * keep[:, None].to(x.dtype)


EFFECTS = {"color": color, "translation": translation, "cutout": cutout}
