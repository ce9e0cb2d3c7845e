"""Convolutions between a map and a single point, the first of a generator and the last of a discriminator.

A kernel that covers the whole map has one position: it is a matrix product, three to ten times faster on CPU than the
same as a convolution. Weights, their names and their layout are those of the torch modules they stand for.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MapToPoint(nn.Conv2d):
    """`[N, C, k, k] -> [N, out, 1, 1]` with a kernel of side k, without padding."""

    def forward(self, x_nchw: Tensor) -> Tensor:
        rows, weight = x_nchw.permute(0, 2, 3, 1).flatten(1), self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, weight, self.bias)[:, :, None, None]


class PointToMap(nn.ConvTranspose2d):
    """`[N, C, 1, 1] -> [N, out, k, k]` with a kernel of side k, without padding and bias; laid out NHWC."""

    def forward(self, x_nchw: Tensor, output_size: list[int] | None = None) -> Tensor:
        inputs, outputs, height, width = self.weight.shape
        maps = x_nchw.flatten(1) @ self.weight.permute(0, 2, 3, 1).reshape(inputs, -1)
        return maps.view(-1, height, width, outputs).permute(0, 3, 1, 2)
