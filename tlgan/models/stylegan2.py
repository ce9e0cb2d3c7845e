"""StyleGAN2 (Karras et al. 2020): mapping network, skip generator with styled convolutions, residual discriminator. 32 to 1024 px.

Layout and numerics are those of the authors' PyTorch implementation, whose trained weights fit. `width` is the channels at
the image side, doubled a level up to `max_width`. Images are not squashed: they may leave [-1, 1] a little. With classes (Karras
et al. 2020, ADA), the mapping network takes an embedding of the class beside the latents, and D has one that takes it alone.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tlgan.models import fir
from tlgan.models.blocks import Network
from tlgan.models.stylegan2_layers import (
    ClassVector,
    Conv,
    Dense,
    StyledConv,
    ToImage,
    minibatch_deviation,
    normalised,
)
from tlgan.shapes import Resolution, base_of, longer

AVERAGE_DECAY = 0.995


def widths(resolution: Resolution, width: int, max_width: int) -> dict[int, int]:
    """Channels at each level. {4: 512, ..., 64: 256, 128: 128, 256: 64} at 256 px, width 64, max_width 512."""
    side = longer(resolution)
    sizes = [4 << k for k in range(side.bit_length() - 2)]
    return {size: min(width * (side // size), max_width) for size in sizes}


class Mapping(nn.Module):
    """Latents `[N, z]`, and labels where there are classes, to styles `[N, w]`; keeps the average style for truncation."""

    def __init__(self, latent_dim: int, style_dim: int, layers: int, classes: int) -> None:
        super().__init__()
        self.embed = ClassVector(classes, style_dim) if classes else None
        inputs = [latent_dim + (style_dim if classes else 0), *[style_dim] * (layers - 1)]
        self.layers = nn.ModuleList(Dense(size, style_dim, lr=0.01, active=True) for size in inputs)
        self.register_buffer("average", torch.zeros(style_dim))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            x = normalised(z.to(self.average.dtype))
            if self.embed is not None:
                x = torch.cat([x, normalised(self.embed(labels))], 1)
            for layer in self.layers:
                x = layer(x)
            return x

    @torch.no_grad()
    def track(self, styles: Tensor) -> None:
        """Moves the average towards the mean style of the global batch."""
        mean = styles.detach().mean(0)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.average.copy_(mean.lerp(self.average, AVERAGE_DECAY))


class SynthesisBlock(nn.Module):
    """One level: (up-)convolutions and the picture so far, enlarged, plus this level's share."""

    def __init__(self, inputs: int, outputs: int, style: int, size: tuple[int, int], channels: int) -> None:
        """`size`: height and width of the level's pictures."""
        super().__init__()
        self.first = max(size) == 4
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, *size))
        else:
            self.conv0 = StyledConv(inputs, outputs, style, size, up=True)
        self.conv1 = StyledConv(outputs, outputs, style, size, up=False)
        self.to_image = ToImage(outputs, channels, style)

    @property
    def convs(self) -> list[StyledConv]:
        return [self.conv1] if self.first else [self.conv0, self.conv1]

    def forward(self, x: Tensor | None, picture: Tensor | None, styles: Tensor, noise: list[Tensor | None]):
        """`styles` `[N, convolutions + 1, w]`; `x` and `picture` of the level before. Returns both at this level."""
        if x is None:
            x = self.const.expand(styles.shape[0], -1, -1, -1)
        for conv, w, n in zip(self.convs, styles.unbind(1), noise, strict=False):
            x = conv(x, w, n)
        share = self.to_image(x, styles[:, len(self.convs)])
        return x, share if picture is None else fir.upsample(picture) + share


class Generator(Network):
    """Latents `[N, latent_dim]` to images `[N, channels, height, width]`, mostly in [-1, 1]."""

    arch, role = "stylegan2", "G"
    equalised = True

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: int,
        width: int,
        latent_dim: int,
        style_dim: int | None = None,
        max_width: int = 512,
        mapping_layers: int = 8,
        clamp: float | None = None,
        classes: list[str] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        style_dim = style_dim or latent_dim
        self.config = {"resolution": resolution, "channels": channels, "width": width, "latent_dim": latent_dim}
        self.config |= {
            "style_dim": style_dim,
            "max_width": max_width,
            "mapping_layers": mapping_layers,
            "clamp": clamp,
        }
        known = self.describe_classes(classes, class_counts)
        self.latent_dim = latent_dim
        self.blocks = nn.ModuleDict({"mapping": Mapping(latent_dim, style_dim, mapping_layers, known)})
        previous, base = 0, base_of(resolution)
        for size, outputs in widths(resolution, width, max_width).items():
            here = (base[0] * size // 4, base[1] * size // 4)
            self.blocks[f"b{size}"] = SynthesisBlock(previous, outputs, style_dim, here, channels)
            previous = outputs
        set_clamp(self, clamp)

    @property
    def levels(self) -> list[SynthesisBlock]:
        return [block for block in self.blocks.values() if isinstance(block, SynthesisBlock)]

    @property
    def style_count(self) -> int:
        """Styles an image takes: one a convolution, and one for the last picture."""
        return sum(len(block.convs) for block in self.levels) + 1

    @property
    def noise_sizes(self) -> list[tuple[int, int]]:
        """Height and width of each convolution's noise, in order."""
        return [tuple(conv.noise.shape) for block in self.levels for conv in block.convs]

    def styles(self, z: Tensor, truncation: float = 1.0, labels: Tensor | None = None) -> Tensor:
        """`[N, latent_dim] -> [N, style_count, style_dim]`; `truncation` draws styles towards the average."""
        self.check_labels(labels)
        mapping = self.blocks["mapping"]
        w = mapping(z, labels)
        if mapping.training:
            mapping.track(w)
        if truncation != 1:
            w = torch.lerp(mapping.average, w, truncation)
        return w[:, None].expand(-1, self.style_count, -1)

    def truncated(self, z: Tensor, truncation: float, labels: Tensor | None = None) -> Tensor:
        return self.synthesise(self.styles(z, truncation, labels))

    def synthesise(self, styles: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Images of styles `[N, style_count, style_dim]`; `noise` as `noise_sizes`, None for the stored pictures."""
        x = picture = None
        position = 0
        for block in self.levels:
            count = len(block.convs)
            own = noise[position : position + count] if noise else [None] * count
            x, picture = block(x, picture, styles[:, position : position + count + 1], own)
            position += count
        return picture

    def forward(
        self,
        z: Tensor,
        mixed: Tensor | None = None,
        cut: Tensor | None = None,
        noise: list[Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """With `mixed`, a second batch of latents, styles from number `cut` `[N]` on are theirs."""
        styles = self.styles(z, labels=labels)
        if mixed is not None and cut is not None:
            theirs = self.blocks["mapping"](mixed, labels)[:, None]
            own = torch.arange(self.style_count, device=z.device) < cut[:, None]
            styles = torch.where(own[:, :, None], styles, theirs)
        return self.synthesise(styles, noise)


class DownBlock(nn.Module):
    """conv-conv with a filtered halving and, if `residual`, a 1x1 shortcut; the first one reads the image."""

    def __init__(self, channels: int | None, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.from_image = None if channels is None else Conv(channels, inputs, 1)
        self.conv0 = Conv(inputs, inputs, 3)
        self.conv1 = Conv(inputs, outputs, 3, down=True)
        self.skip = Conv(inputs, outputs, 1, down=True, shortcut=True) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        if self.from_image is not None:
            x = self.from_image(x)
        if self.skip is None:
            return self.conv1(self.conv0(x))
        half = math.sqrt(0.5)
        return self.skip(x, half) + self.conv1(self.conv0(x), half)


class Head(nn.Module):
    """Minibatch deviation (in eval mode with the authors' groups), a convolution and two dense layers to one logit `[N]`.

    With classes, to features that are multiplied by the class's.
    """

    def __init__(
        self, inputs: int, base: tuple[int, int], classes: int, mapping_layers: int, group: int | None
    ) -> None:
        super().__init__()
        self.group = group
        self.conv = Conv(inputs + 1, inputs, 3)
        self.dense = Dense(inputs * base[0] * base[1], inputs, active=True)
        self.out = Dense(inputs, inputs if classes else 1)
        self.mapping = ClassMapping(inputs, mapping_layers, classes) if classes else None

    def forward(self, x: Tensor, parts: int, labels: Tensor | None) -> Tensor:
        x = self.conv(minibatch_deviation(x, parts, strided=not self.training, group=self.group))
        x = self.out(self.dense(x.flatten(1).to(self.out.weight.dtype)))
        return x.flatten() if self.mapping is None else (x * self.mapping(labels)).sum(1) / math.sqrt(x.shape[1])


class ClassMapping(nn.Module):
    """D's mapping network: labels to `[N, features]`."""

    def __init__(self, features: int, layers: int, classes: int) -> None:
        super().__init__()
        self.embed = ClassVector(classes, features)
        self.layers = nn.ModuleList(Dense(features, features, lr=0.01, active=True) for _ in range(layers))

    def forward(self, labels: Tensor) -> Tensor:
        with torch.autocast(labels.device.type, enabled=False):
            x = normalised(self.embed(labels))
            for layer in self.layers:
                x = layer(x)
            return x


class Discriminator(Network):
    """Images `[N, channels, height, width]` to logits `[N]`. A logit depends on the group the image is in.

    `deviation_group`: images that a minibatch deviation is taken over; None: the whole batch.
    """

    arch, role = "stylegan2", "D"
    equalised = looks_at_batch = True

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: int,
        width: int,
        max_width: int = 512,
        clamp: float | None = None,
        residual: bool = True,
        mapping_layers: int = 8,
        deviation_group: int | None = 4,
        classes: list[str] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {"resolution": resolution, "channels": channels, "width": width}
        self.config |= {"max_width": max_width, "clamp": clamp}
        if deviation_group != 4:
            self.config["deviation_group"] = deviation_group
        known = self.describe_classes(classes, class_counts)
        if known:
            self.config["mapping_layers"] = mapping_layers
        if not residual:
            self.config["residual"] = False
        at = widths(resolution, width, max_width)
        self.blocks = nn.ModuleDict()
        for size in sorted(at, reverse=True)[:-1]:
            reads = channels if size == longer(resolution) else None
            self.blocks[f"b{size}"] = DownBlock(reads, at[size], at[size // 2], residual)
        self.blocks["b4"] = Head(at[4], base_of(resolution), known, mapping_layers, deviation_group)
        set_clamp(self, clamp)

    def forward(self, x: Tensor, parts: int = 1, labels: Tensor | None = None) -> Tensor:
        """`parts`: how many batches of equal size `x` is the concatenation of."""
        self.check_labels(labels)
        for name, block in self.blocks.items():
            x = block(x, parts, labels) if name == "b4" else block(x)
        return x


def set_clamp(network: nn.Module, clamp: float | None) -> None:
    """Limits activations to +-`clamp`, as networks trained in half precision were; what D's shortcuts carry is not limited."""
    for module in network.modules():
        if isinstance(module, Conv | StyledConv | ToImage):
            module.clamp = clamp


def build(role: str, **config) -> Network:
    return Generator(**config) if role == "G" else Discriminator(**config)
