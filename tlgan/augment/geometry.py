"""Affine warps of images that can be differentiated any number of times (Karras et al. 2020, ADA, appendix B).

An image is reflected at its border, enlarged twice with the wavelet filter sym6, sampled bilinearly and reduced with the same
filter. The filter is orthonormal: the identity and whole-pixel shifts give the pixels themselves, and the rest is free of
aliases. Filters are applied as matrix products, with the reflection in them: on CPU ten times faster than as convolutions.

Maps lead from the result to the source. They are float64 `[N, 3, 3]`, for their rounding moves pixels, and act on columns
(x, y, 1) in pixels from the image's centre.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Daubechies 1992: the least asymmetric orthonormal filter with six vanishing moments
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
GUARD = len(SYM6) // 4  # pixels beyond the border that the filter looks at


def identity(like: Tensor) -> Tensor:
    """`[N, 3, 3]` for `like` `[N, ...]`"""
    return torch.eye(3, dtype=like.dtype, device=like.device).expand(len(like), 3, 3)


def _rows(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, c, d, e, f, zero, zero, one], 1).view(-1, 3, 3)


def shift(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _rows(one, zero, x, zero, one, y)


def scale(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _rows(x, zero, zero, zero, y, zero)


def rotate(angle: Tensor) -> Tensor:
    """`angle` `[N]` in radians."""
    zero, cos, sin = torch.zeros_like(angle), torch.cos(angle), torch.sin(angle)
    return _rows(cos, -sin, zero, sin, cos, zero)


def warp(x_nchw: Tensor, to_source: Tensor) -> Tensor:
    """The images that `to_source` makes of `x_nchw`, of the same size."""
    height, width = x_nchw.shape[2:]
    ones = torch.ones(len(x_nchw), dtype=to_source.dtype, device=x_nchw.device)
    left, right, top, bottom = _margins(to_source, height, width)
    to_source = shift(ones * ((left - right) / 2), ones * ((top - bottom) / 2)) @ to_source
    down, across = _enlarging(height, top, bottom, x_nchw), _enlarging(width, left, right, x_nchw)
    larger = down @ x_nchw @ across.t()
    half = ones * 0.5
    to_source = scale(2 * ones, 2 * ones) @ to_source @ scale(half, half)
    to_source = shift(-half, -half) @ to_source @ shift(half, half)  # the filter of even length moves by half a pixel
    rows, cols = 2 * (height + 2 * GUARD), 2 * (width + 2 * GUARD)
    unit = scale(ones * (2 / larger.shape[3]), ones * (2 / larger.shape[2]))
    theta = unit @ to_source @ scale(ones * (cols / 2), ones * (rows / 2))
    grid = F.affine_grid(theta[:, :2], [len(x_nchw), x_nchw.shape[1], rows, cols], align_corners=False)
    shown = _Sample.apply(larger, grid.to(x_nchw.dtype))
    return _reducing(height, x_nchw) @ shown @ _reducing(width, x_nchw).t()


def _margins(to_source: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels (left, right, top, bottom) that the corners of the results reach beyond the images; reflection has no more."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = to_source.new_tensor([[-x, x, x, -x], [-y, -y, y, y], [1, 1, 1, 1]])
    reached = (to_source @ corners)[:, :2]
    least, most = reached.amin((0, 2)).tolist(), reached.amax((0, 2)).tolist()

    def whole(beyond: float, limit: int) -> int:
        return int(min(max(-(-(beyond + 2 * GUARD) // 1), 0), limit - 1))

    sides = [(-least[0] - x, width), (most[0] - x, width), (-least[1] - y, height), (most[1] - y, height)]
    left, right, top, bottom = (whole(beyond, limit) for beyond, limit in sides)
    return left, right, top, bottom


def _enlarging(size: int, before: int, after: int, like: Tensor) -> Tensor:
    """`[2 (before + size + after), size]`: reflects that many pixels at both ends, then doubles the number of samples."""
    steps = torch.arange(-before, size + after, device=like.device)
    source = (size - 1 - (size - 1 - steps.abs()).abs()).unsqueeze(1)
    reflect = (source == torch.arange(size, device=like.device)).to(like.dtype)
    return _filter(len(steps), like) @ reflect


def _filter(size: int, like: Tensor) -> Tensor:
    """`[2 size, size]` with orthonormal columns, but for the ends: zeros between samples, then the filter."""
    taps = F.pad(like.new_tensor(SYM6), (0, 1))  # the last for what the filter does not reach
    at = torch.arange(2 * size, device=like.device)[:, None] + len(SYM6) // 2 - 1
    tap = at - 2 * torch.arange(size, device=like.device)
    return taps[torch.where((tap >= 0) & (tap < len(SYM6)), tap, len(SYM6))]


def _reducing(size: int, like: Tensor) -> Tensor:
    """`[size, 2 (size + 2 GUARD)]`: the filter's adjoint, without the guard."""
    return _filter(size + 2 * GUARD, like).t()[GUARD : GUARD + size]


class _Sample(torch.autograd.Function):
    """Bilinear sampling at `grid`, zeros outside. torch's has no second derivative; it is linear in the image, and this pair
    of functions are each other's adjoints. The grid gets no gradient.
    """

    @staticmethod
    def forward(ctx, x_nchw, grid):
        ctx.save_for_backward(grid)
        ctx.size = x_nchw.shape
        return torch.grid_sampler_2d(x_nchw, grid, 0, 0, False)

    @staticmethod
    def backward(ctx, grad):
        (grid,) = ctx.saved_tensors
        return _Spread.apply(grad, grid, ctx.size), None


class _Spread(torch.autograd.Function):
    """Adds every value to the four pixels it would be sampled from."""

    @staticmethod
    def forward(ctx, y_nchw, grid, size):
        ctx.save_for_backward(grid)
        shape_only = y_nchw.new_zeros(()).expand(size)
        return torch.ops.aten.grid_sampler_2d_backward(y_nchw, shape_only, grid, 0, 0, False, [True, False])[0]

    @staticmethod
    def backward(ctx, grad):
        (grid,) = ctx.saved_tensors
        return _Sample.apply(grad, grid), None, None
