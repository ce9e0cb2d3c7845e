"""Resampling by two with the filter [1, 3, 3, 1] (Karras et al. 2020, StyleGAN2): no aliases, half-pixel centres, zeros outside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)


def blur(x_nchw: Tensor, before: int, after: int, gain: float = 1.0, stride: int = 1) -> Tensor:
    """`x` padded by `before` rows and columns of zeros at the start and `after` at the end, filtered, every `stride`-th kept."""
    taps = torch.tensor(TAPS, dtype=x_nchw.dtype, device=x_nchw.device)
    kernel = taps.outer(taps) * (gain / taps.sum() ** 2)
    channels = x_nchw.shape[1]
    padded = F.pad(x_nchw, (before, after, before, after))
    return F.conv2d(padded, kernel.expand(channels, 1, 4, 4), stride=stride, groups=channels)


def upsample(x_nchw: Tensor) -> Tensor:
    """`[N, C, H, W] -> [N, C, 2H, 2W]`. The filter's two phases are those of linear interpolation."""
    larger = F.interpolate(F.pad(x_nchw, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
    return larger[:, :, 2:-2, 2:-2]


def downsample(x_nchw: Tensor) -> Tensor:
    """`[N, C, H, W] -> [N, C, H/2, W/2]`"""
    return blur(x_nchw, 1, 1, stride=2)
