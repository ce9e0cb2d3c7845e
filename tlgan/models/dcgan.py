"""DCGAN (Radford, Metz, Chintala 2016): strided convolutions, batch norm in G, leaky ReLU in D.

Departures: D has spectral normalisation (Miyato et al. 2018) in place of batch norm, so that real and fake images can share
one pass and penalties are well defined; batch norm in G uses the global batch. With classes, batch norm in G is conditional and
D projects its last map, summed over positions, on the class. 32 to 128 px.
"""

from __future__ import annotations

from torch import Tensor, nn

from tlgan.models.blocks import BatchNorm2d, Network, level_widths, spectral
from tlgan.models.convolutions import Down, FromImage, MapToPoint, PointToMap, ToImage, Up
from tlgan.models.labels import Projection, batch_norm, normed
from tlgan.shapes import Resolution, base_of, longer


class Block(nn.Sequential):
    """Layers one after the other, of which batch normalisations may take labels."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        for layer in self:
            x = normed(layer, x, labels)
        return x


class Generator(Network):
    """Latents `[N, latent_dim]` to images `[N, channels, height, width]` in [-1, 1]."""

    arch, role = "dcgan", "G"

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: int,
        width: int,
        latent_dim: int,
        classes: list[str] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {"resolution": resolution, "channels": channels, "width": width, "latent_dim": latent_dim}
        known = self.describe_classes(classes, class_counts)
        self.latent_dim = latent_dim
        widths = level_widths(resolution, width)
        first = PointToMap(latent_dim, widths[4], base_of(resolution), bias=False)
        self.blocks = nn.ModuleDict({"b4": _normalised(first, widths[4], known)})
        for size in list(widths)[1:]:
            up = Up(widths[size // 2], widths[size], 4, 2, 1, bias=False)
            self.blocks[f"b{size}"] = _normalised(up, widths[size], known)
        last = ToImage(widths[longer(resolution) // 2], channels, 4, 2, 1)
        self.blocks[f"b{longer(resolution)}"] = Block(last, nn.Tanh())
        self.apply(initialise)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        self.check_labels(labels)
        x = z[:, :, None, None]
        for block in self.blocks.values():
            x = block(x, labels)
        return x


class Discriminator(Network):
    """Images `[N, channels, height, width]` in [-1, 1] to logits `[N]`."""

    arch, role = "dcgan", "D"

    def __init__(
        self,
        *,
        resolution: Resolution,
        channels: int,
        width: int,
        spectral_norm: bool,
        classes: list[str] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = {"resolution": resolution, "channels": channels, "width": width, "spectral_norm": spectral_norm}
        known = self.describe_classes(classes, class_counts)
        widths = level_widths(resolution, width)
        self.blocks = nn.ModuleDict()
        previous = channels
        for size in reversed(widths):
            conv = (Down if self.blocks else FromImage)(previous, widths[size], 4, 2, 1)
            self.blocks[f"b{size * 2}"] = nn.Sequential(conv, nn.LeakyReLU(0.2, inplace=True))
            previous = widths[size]
        project = [Projection(known, previous, spectral_norm=spectral_norm)] if known else []
        self.blocks["b4"] = Head(MapToPoint(previous, 1, base_of(resolution)), *project)
        self.apply(initialise)
        for block in self.blocks.values():
            spectral(block[0], spectral_norm)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self.check_labels(labels)
        for name, block in self.blocks.items():
            x = block(x, labels) if name == "b4" else block(x)
        return x


class Head(nn.Sequential):
    """A 4x4 map to one logit; with classes, by projection too. `[N, C, 4, 4] -> [N]`"""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self[0](x).flatten()
        return logits if labels is None else logits + self[1](x.sum((2, 3)), labels)


def _normalised(conv: nn.Module, outputs: int, classes: int) -> Block:
    return Block(conv, batch_norm(outputs, classes), nn.ReLU(inplace=True))


def initialise(module: nn.Module) -> None:
    """The paper's: weights N(0, 0.02), batch-norm gains N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def build(role: str, **config) -> Network:
    return Generator(**config) if role == "G" else Discriminator(**config)
