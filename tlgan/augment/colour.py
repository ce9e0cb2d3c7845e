"""ADA's colour transformations (Karras et al. 2020): one affine map of colours an image.

Columns are (red, green, blue, 1). Grey images take the map's mean over its three rows, as the authors do. Channels beyond grey or
RGB (alpha) stay as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BRIGHTNESS_STD = 0.2  # on images in [-1, 1]
CONTRAST_STD = 0.5  # of the logarithm to base 2
SATURATION_STD = 1.0  # the same


def recolour(x: Tensor, p: Tensor, chance: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Brightness, contrast, inverted lightness (half of the time), hue by any angle, saturation; each with probability `p`."""
    chance, uniform, normal = chance.to(x.dtype), uniform.to(x.dtype), normal.to(x.dtype)
    happens = chance < p
    brightness = torch.where(happens[:, 0], normal[:, 0] * BRIGHTNESS_STD, 0.0)
    contrast = torch.where(happens[:, 1], torch.exp2(normal[:, 1] * CONTRAST_STD), 1.0)
    inverted = happens[:, 2] & (uniform[:, 0] < 0.5)
    hue = torch.where(happens[:, 3], (uniform[:, 1] * 2 - 1) * math.pi, 0.0)
    saturation = torch.where(happens[:, 4], torch.exp2(normal[:, 2] * SATURATION_STD), 1.0)
    mapped = _brightness(brightness)
    mapped = _diagonal(contrast) @ mapped
    mapped = _about_grey(torch.where(inverted, -1.0, 1.0).to(x.dtype), torch.ones_like(hue)) @ mapped
    if x.shape[1] >= 3:
        mapped = _about_grey(torch.ones_like(hue), saturation) @ _hue(hue) @ mapped
    return _apply(mapped, x)


def _apply(mapped: Tensor, x: Tensor) -> Tensor:
    colours = 3 if x.shape[1] >= 3 else 1
    shown, rest = x[:, :colours], x[:, colours:]
    if colours == 3:
        shown = (mapped[:, :3, :3] @ shown.flatten(2) + mapped[:, :3, 3:]).view_as(shown)
    else:
        row = mapped[:, :3].mean(1)
        shown = shown * row[:, :3].sum(1)[:, None, None, None] + row[:, 3][:, None, None, None]
    return torch.cat([shown, rest], 1) if rest.shape[1] else shown


def _embedded(colours: Tensor) -> Tensor:
    """`[N, 3, 3] -> [N, 4, 4]`"""
    whole = torch.eye(4, dtype=colours.dtype, device=colours.device).repeat(len(colours), 1, 1)
    whole[:, :3, :3] = colours
    return whole


def _brightness(added: Tensor) -> Tensor:
    whole = torch.eye(4, dtype=added.dtype, device=added.device).repeat(len(added), 1, 1)
    whole[:, :3, 3] = added[:, None]
    return whole


def _diagonal(factor: Tensor) -> Tensor:
    return _embedded(torch.eye(3, dtype=factor.dtype, device=factor.device) * factor[:, None, None])


def _about_grey(along: Tensor, across: Tensor) -> Tensor:
    """Colours scaled by `along` `[N]` in the direction of grey and by `across` at right angles to it."""
    onto = torch.full((3, 3), 1 / 3, dtype=along.dtype, device=along.device)
    rest = torch.eye(3, dtype=along.dtype, device=along.device) - onto
    return _embedded(onto * along[:, None, None] + rest * across[:, None, None])


def _hue(angle: Tensor) -> Tensor:
    """A turn about the direction of grey (Rodrigues' formula)."""
    onto = torch.full((3, 3), 1 / 3, dtype=angle.dtype, device=angle.device)
    cross = angle.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rest = torch.eye(3, dtype=angle.dtype, device=angle.device) - onto
    return _embedded(onto + rest * torch.cos(angle)[:, None, None] + cross * torch.sin(angle)[:, None, None])
