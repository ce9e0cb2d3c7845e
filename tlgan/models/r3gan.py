"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!"): a ResNeXt-like pair without normalisation or other tricks.

Residual blocks 1x1 - grouped 3x3 - 1x1 in an inverted bottleneck, leaky ReLU, weights scaled by the number of blocks and the
last of each block zero at the start (Zhang et al. 2019, fix-up), resampling that is not learnt, a learnt 4x4 map at the latents and
another at the logits. Made for `loss: {name: relativistic, r1: ..., r2: ...}`. 32 to 256 px.

`width` is the channels at the image side, doubled a level up to `max_width` (the authors' networks: 768 at every level at 32 px;
128, 256, 512, 768, ... at 256 px). Departures: resampling by [1, 3, 3, 1] (bilinear with half-pixel centres) in place of [1, 2, 1].
Images are not squashed: they may leave [-1, 1] a little. With classes, G's latents are followed by a learnt vector of the class,
and D's logit is the product of its output with another.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlgan.data.image import ALPHA
from tlgan.models import fir
from tlgan.models.blocks import Network
from tlgan.models.labels import ClassTable
from tlgan.shapes import Resolution, base_of, longer

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through the leaky ReLU
GROUP = 16  # channels of a group of the 3x3 convolution
EXPANSION = 2
EMBEDDED = 64  # length of a class's vector


def widths(resolution: Resolution, width: int, max_width: int) -> dict[int, int]:
    """Channels at each level, by the longer side.

    {4: 768, 8: 768, 16: 768, 32: 768, 64: 512, 128: 256, 256: 128} at 256 px, width 128.
    """
    side = longer(resolution)
    sizes = [4 << k for k in range(side.bit_length() - 2)]
    return {size: min(width * (side // size), max_width) for size in sizes}


def scaled(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Weights N(0, gain^2 / inputs) (He et al. 2015)."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


class Bend(nn.Module):
    """A bias a channel, then leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], SLOPE)


class Residual(nn.Module):
    """`x` plus 1x1, grouped 3x3 and 1x1 convolutions of it. `[N, C, s, s]` to the same; the identity at the start.

    `total` residual blocks in the network share the variance.
    """

    def __init__(self, channels: int, total: int) -> None:
        super().__init__()
        inner = channels * EXPANSION
        groups = inner // math.gcd(inner, GROUP)
        gain = GAIN * total ** (-1 / 4)  # of each of the two layers that are not zero
        self.expand = scaled(nn.Conv2d(channels, inner, 1, bias=False), gain)
        self.bend1 = Bend(inner)
        self.mix = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False), gain)
        self.bend2 = Bend(inner)
        self.shrink = scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(self.bend2(self.mix(self.bend1(self.expand(x)))))


def _residuals(channels: int, depth: int, total: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels, total) for _ in range(depth)))


class FromLatent(nn.Module):
    """A learnt 4x4 map (`base`) a channel, times a linear function of the latents. `[N, z] -> [N, C, 4, 4]`"""

    def __init__(self, inputs: int, channels: int, base: tuple[int, int]) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, *base))
        self.linear = scaled(nn.Linear(inputs, channels, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        return self.basis * self.linear(z)[:, :, None, None]


class ToLogits(nn.Module):
    """The mirror image of `FromLatent`. `[N, C, 4, 4] -> [N, outputs]`"""

    def __init__(self, channels: int, outputs: int, base: tuple[int, int]) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, *base) / math.sqrt(base[0] * base[1]))
        self.linear = scaled(nn.Linear(channels, outputs, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x * self.basis).sum((2, 3)))


def _to_image(channels: int, image: int) -> nn.Module:
    """Without a bias, as the authors' is; images with alpha get one, so that they begin opaque."""
    conv = nn.Conv2d(channels, image, 1, bias=image in ALPHA)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
        nn.init.ones_(conv.bias[-1:])
    return scaled(conv)


class GeneratorBlock(nn.Module):
    """One level: enlarged (or from the latents and the class), then residual blocks; the last level makes the image."""

    def __init__(
        self, inputs: int, channels: int, depth: int, total: int, image: int | None, base: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.first = base is not None
        if base is not None:
            self.from_latent = FromLatent(inputs, channels, base)
        else:
            self.change = scaled(nn.Conv2d(inputs, channels, 1, bias=False)) if inputs != channels else None
        self.residuals = _residuals(channels, depth, total)
        self.to_image = None if image is None else _to_image(channels, image)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.first:
            x = self.from_latent(x if labels is None else torch.cat([x, self.classes(labels)], 1))
        else:
            x = fir.upsample(x if self.change is None else self.change(x))
        x = self.residuals(x)
        return x if self.to_image is None else self.to_image(x)


class Generator(Network):
    """Latents `[N, latent_dim]` to images `[N, channels, resolution, resolution]`, mostly in [-1, 1]."""

    arch, role = "r3gan", "G"

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: int,
        width: int,
        latent_dim: int,
        max_width: int = 768,
        depth: int = 2,
        classes: list[str] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {"resolution": resolution, "channels": channels, "width": width, "latent_dim": latent_dim}
        self.config |= {"max_width": max_width, "depth": depth}
        known = self.describe_classes(classes, class_counts)
        self.latent_dim = latent_dim
        at = widths(resolution, width, max_width)
        self.blocks = nn.ModuleDict()
        previous = latent_dim + (EMBEDDED if known else 0)
        for size, own in at.items():
            image = channels if size == longer(resolution) else None
            base = base_of(resolution) if size == 4 else None
            self.blocks[f"b{size}"] = GeneratorBlock(previous, own, depth, depth * len(at), image, base)
            previous = own
        if known:
            self.blocks["b4"].classes = ClassTable(known, EMBEDDED, std=1.0)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        self.check_labels(labels)
        x = z
        for name, block in self.blocks.items():
            x = block(x, labels) if name == "b4" else block(x)
        return x


class DiscriminatorBlock(nn.Module):
    """One level: residual blocks, then reduced (or to the logits); the first level reads the image."""

    def __init__(
        self, channels: int, outputs: int, depth: int, total: int, image: int | None, base: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.from_image = None if image is None else scaled(nn.Conv2d(image, channels, 1, bias=False))
        self.residuals = _residuals(channels, depth, total)
        self.last = base is not None
        if base is not None:
            self.to_logits = ToLogits(channels, outputs, base)
        else:
            self.change = scaled(nn.Conv2d(channels, outputs, 1, bias=False)) if channels != outputs else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.residuals(x if self.from_image is None else self.from_image(x))
        if self.last:
            x = self.to_logits(x)
            return x.flatten() if labels is None else (x * self.classes(labels)).sum(1) / math.sqrt(x.shape[1])
        x = fir.downsample(x)
        return x if self.change is None else self.change(x)


class Discriminator(Network):
    """Images `[N, channels, resolution, resolution]` in [-1, 1] to logits `[N]`."""

    arch, role = "r3gan", "D"

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: int,
        width: int,
        max_width: int = 768,
        depth: int = 2,
        classes: list[str] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {"resolution": resolution, "channels": channels, "width": width}
        self.config |= {"max_width": max_width, "depth": depth}
        known = self.describe_classes(classes, class_counts)
        at = widths(resolution, width, max_width)
        self.blocks = nn.ModuleDict()
        for size in sorted(at, reverse=True):
            image = channels if size == longer(resolution) else None
            outputs = at[size // 2] if size > 4 else EMBEDDED if known else 1
            base = base_of(resolution) if size == 4 else None
            self.blocks[f"b{size}"] = DiscriminatorBlock(at[size], outputs, depth, depth * len(at), image, base)
        if known:
            self.blocks["b4"].classes = ClassTable(known, EMBEDDED, std=1.0)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self.check_labels(labels)
        for name, block in self.blocks.items():
            x = block(x, labels) if name == "b4" else block(x)
        return x


def build(role: str, **config) -> Network:
    return Generator(**config) if role == "G" else Discriminator(**config)
