"""ADA (Karras et al. 2020, "Training generative adversarial networks with limited data"): pixel blitting, geometry and colour.

Each transformation of the policy happens to an image with probability p, which follows D's overfitting (see `strength`). Ranges
and order are the authors'. One departure: mirroring, quarter turns and whole-pixel shifts move the pixels themselves, where
the authors send them through the filters of the geometric part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tlgan.augment import Params, geometry
from tlgan.augment.colour import recolour
from tlgan.augment.strength import Strength
from tlgan.recipe import AugmentSpec

POLICY = ("blit", "geometry", "color")
CHANCES = {"blit": 3, "geometry": 5, "color": 5}  # transformations of each group
UNIFORM = {"blit": 4, "geometry": 2, "color": 2}  # of their amounts, those drawn from [0, 1)
NORMAL = {"blit": 0, "geometry": 4, "color": 3}  # and from the standard normal distribution
SHIFT = 1 / 8  # largest whole-pixel shift, and the standard deviation of the other, as a share of the side
SCALE_STD = STRETCH_STD = 0.2  # of the logarithm to base 2


class Ada:
    """`[N, C, H, W]` to the same, each image by its own draws; differentiable any number of times."""

    through_penalties = True

    def __init__(self, spec: AugmentSpec) -> None:
        self.policy = spec.policy or list(POLICY)
        self.strength = Strength(spec)

    def draw(self, count: int, rng: torch.Generator) -> Params:
        """For each group: numbers that p is held against, and the amounts."""
        drawn: Params = {}
        for group in self.policy:
            drawn[f"{group}/chance"] = torch.rand(count, CHANCES[group], generator=rng)
            drawn[f"{group}/uniform"] = torch.rand(count, UNIFORM[group], generator=rng)
            drawn[f"{group}/normal"] = torch.randn(count, NORMAL[group], generator=rng)
        return drawn

    def __call__(self, x_nchw: Tensor, params: Params) -> Tensor:
        for group in POLICY:
            if group in self.policy:
                parts = (params[f"{group}/{part}"].to(x_nchw.device) for part in ("chance", "uniform", "normal"))
                x_nchw = GROUPS[group](x_nchw, self.strength.p, *parts)
        return x_nchw


def blit(x: Tensor, p: Tensor, chance: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Mirrored left to right (half of the time), turned by quarters (by halves where sides differ), shifted by up to an eighth."""
    happens = chance < p
    mirrored = happens[:, 0] & (uniform[:, 0] < 0.5)
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    quarters = (uniform[:, 1] * 4).long() if x.shape[2] == x.shape[3] else (uniform[:, 1] * 2).long() * 2
    quarters = torch.where(happens[:, 1], quarters, 0)
    for turn in (1, 2, 3) if x.shape[2] == x.shape[3] else (2,):
        x = torch.where((quarters == turn)[:, None, None, None], torch.rot90(x, turn, (2, 3)), x)
    share = (uniform[:, 2:] * 2 - 1) * SHIFT * happens[:, 2:]
    return roll(x, (share * share.new_tensor([x.shape[3], x.shape[2]])).round().long())


def roll(x: Tensor, by: Tensor) -> Tensor:
    """`x` moved by whole pixels `by` `[N, 2]` (right, down), fewer than a side; what comes in is reflected at the border."""
    count, channels, height, width = x.shape

    def sources(size: int, moved: Tensor) -> Tensor:
        at = (torch.arange(size, device=x.device) - moved[:, None]).abs()
        return size - 1 - (size - 1 - at).abs()

    rows = sources(height, by[:, 1])[:, None, :, None].expand(count, channels, height, width)
    cols = sources(width, by[:, 0])[:, None, None, :].expand(count, channels, height, width)
    return x.gather(2, rows).gather(3, cols)


def warped(x: Tensor, p: Tensor, chance: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Scaled, turned, stretched, turned again and shifted, in one resampling.

    The two turns together happen with probability p: a turn of the whole circle would else be twice as likely.
    """
    chance, uniform, normal = chance.double(), uniform.double(), normal.double()
    p_turn = 1 - torch.sqrt((1 - p).clamp(min=0))
    size = torch.where(chance[:, 0] < p, torch.exp2(normal[:, 0] * SCALE_STD), 1.0)
    first = torch.where(chance[:, 1] < p_turn, (uniform[:, 0] * 2 - 1) * math.pi, 0.0)
    stretch = torch.where(chance[:, 2] < p, torch.exp2(normal[:, 1] * STRETCH_STD), 1.0)
    second = torch.where(chance[:, 3] < p_turn, (uniform[:, 1] * 2 - 1) * math.pi, 0.0)
    moved = torch.where(chance[:, 4:] < p, normal[:, 2:] * SHIFT, 0.0)
    to_source = geometry.scale(1 / size, 1 / size) @ geometry.rotate(first)
    to_source = to_source @ geometry.scale(1 / stretch, stretch) @ geometry.rotate(second)
    to_source = to_source @ geometry.shift(-moved[:, 0] * x.shape[3], -moved[:, 1] * x.shape[2])
    if torch.equal(to_source, geometry.identity(to_source)):
        return x
    return geometry.warp(x, to_source)


GROUPS = {"blit": blit, "geometry": warped, "color": recolour}
