"""StyleGAN2's layers with equalised learning rates: weights are stored with unit variance and scaled as they are used.

Names of gains and epsilons follow Karras et al. 2020 and 2020 (ADA), whose trained weights these layers take as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlgan.models import fir
from tlgan.models.labels import ClassTable

EPS = 1e-8
ROOT2 = math.sqrt(2)


def leaky(x: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2 times sqrt(2), which keeps the variance, times `gain`."""
    x = F.leaky_relu(x, 0.2) * (ROOT2 * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


class Dense(nn.Module):
    """A linear layer. `lr` scales how fast it learns, not what it computes at the start. `[N, i] -> [N, o]`"""

    def __init__(self, inputs: int, outputs: int, *, lr: float = 1.0, bias: float = 0.0, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.lr, self.active = lr, active

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr / math.sqrt(self.weight.shape[1])
        y = F.linear(x, self.weight * scale, self.bias * self.lr)
        return leaky(y) if self.active else y


def normalised(x: Tensor) -> Tensor:
    """Rows `[N, F]` with a mean square of one."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)


class ClassVector(ClassTable):
    """A dense layer from the one-hot class: weights scaled as they are used, and a bias. `[N] -> [N, F]`"""

    equalised = True

    def __init__(self, classes: int, features: int) -> None:
        super().__init__(classes, features, std=1.0)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, labels: Tensor) -> Tensor:
        return super().forward(labels) * (1 / math.sqrt(len(self.weight))) + self.bias


class Conv(nn.Module):
    """D's convolution, with the leaky ReLU unless it is a shortcut; `down` halves the sides with the filter."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, shortcut: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = None if shortcut else nn.Parameter(torch.zeros(outputs))
        self.down = down
        self.clamp: float | None = None

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        kernel = self.weight.shape[-1]
        weight = self.weight * (1 / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if not self.down:
            y = F.conv2d(x, weight, bias, padding=kernel // 2)
        elif kernel == 1:
            y = F.conv2d(fir.downsample(x), weight, bias)
        else:
            y = F.conv2d(fir.blur(x, 2, 2), weight, bias, stride=2)
        if self.bias is not None:
            return leaky(y, gain, self.clamp)
        return y * gain


class StyledConv(nn.Module):
    """A convolution whose input channels the style scales and whose outputs are brought back to unit variance.

    Then noise, bias, leaky ReLU. `up` doubles the sides. `[N, i, s, s], [N, w] -> [N, o, s or 2s, ...]`
    """

    def __init__(self, inputs: int, outputs: int, style: int, size: tuple[int, int], *, up: bool) -> None:
        super().__init__()
        self.affine = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(*size))
        self.up = up
        self.clamp: float | None = None

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """`noise` `[N, 1, s, s]`; None: the same stored picture for all images."""
        with torch.autocast(w.device.type, enabled=False):  # small sums of many squares: in full precision
            styles = self.affine(w)
            energy = self.weight.square().sum((2, 3))
            demodulate = torch.rsqrt(styles.square() @ energy.t() + EPS)
        weight = self.weight.to(x.dtype)
        x = x * styles.to(x.dtype)[:, :, None, None]
        if self.up:
            x = fir.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 1, 1, gain=4)
        else:
            x = F.conv2d(x, weight, padding=1)
        x = x * demodulate.to(x.dtype)[:, :, None, None]
        added = (self.noise if noise is None else noise) * self.noise_strength
        return leaky(x + added.to(x.dtype) + self.bias.to(x.dtype)[:, None, None], clamp=self.clamp)


class ToImage(nn.Module):
    """A styled 1x1 convolution to image channels, neither brought to unit variance nor bent."""

    def __init__(self, inputs: int, channels: int, style: int) -> None:
        super().__init__()
        self.affine = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.clamp: float | None = None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * (1 / math.sqrt(self.weight.shape[1]))
        y = F.conv2d(x * styles.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype), self.bias.to(x.dtype))
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


def minibatch_deviation(x: Tensor, parts: int, *, strided: bool, group: int | None = 4) -> Tensor:
    """`x` with one channel more: the mean standard deviation within groups of `group` images, None: all (Karras et al. 2018).

    Groups are taken within each of `parts` equal parts of the batch: `strided` as the authors do, or of neighbours, which
    stay together however a batch is spread over workers.
    """
    size = len(x) // parts
    group = max(g for g in range(1, min(group or size, size) + 1) if size % g == 0)
    shape = (group, size // group) if strided else (size // group, group)
    axis = 1 if strided else 2
    grouped = x.reshape(parts, *shape, *x.shape[1:])
    deviation = (grouped - grouped.mean(axis, keepdim=True)).square().mean(axis).add(EPS).sqrt().mean((2, 3, 4))
    plane = deviation.unsqueeze(axis)[..., None, None, None].expand(parts, *shape, 1, *x.shape[2:])
    return torch.cat([x, plane.reshape(len(x), 1, *x.shape[2:])], 1)
