"""SNGAN's residual networks (Miyato et al. 2018, after Gulrajani et al. 2017), 32 to 128 px.

Departures: batch norm in G uses the global batch; G starts from a linear layer inside its first block `b4`; convolutions
whose bias the next batch norm would subtract have none, for Adam would make a random walk of its rounding errors.
With classes (Miyato, Koyama 2018), batch norms in G's blocks are conditional and D projects its features on the class.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tlgan.models.blocks import BatchNorm2d, Network, level_widths, spectral
from tlgan.models.labels import Projection, batch_norm, normed
from tlgan.shapes import Resolution, base_of, longer


class UpBlock(nn.Module):
    """BN-ReLU-upsample-conv-BN-ReLU-conv with an upsampled 1x1 shortcut. `[N, i, s, s] -> [N, o, 2s, 2s]`"""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = batch_norm(inputs, classes), batch_norm(outputs, classes)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(normed(self.norm1, x, labels)), scale_factor=2))
        h = self.conv2(F.relu(normed(self.norm2, h, labels)))
        return h + F.interpolate(self.skip(x), scale_factor=2)


class FromLatent(nn.Module):
    def __init__(self, latent_dim: int, outputs: int, base: tuple[int, int]) -> None:
        super().__init__()
        self.shape = (outputs, *base)
        self.linear = nn.Linear(latent_dim, outputs * base[0] * base[1])

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z).view(-1, *self.shape)


class Generator(Network):
    """Latents `[N, latent_dim]` to images `[N, channels, height, width]` in [-1, 1]."""

    arch, role = "resnet", "G"

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
        sizes = list(widths)
        self.blocks = nn.ModuleDict({"b4": FromLatent(latent_dim, widths[4], base_of(resolution))})
        for size in sizes[1:]:
            self.blocks[f"b{size}"] = UpBlock(widths[size // 2], widths[size], known)
        top = widths[sizes[-1]]
        to_image = [BatchNorm2d(top), nn.ReLU(inplace=True), nn.Conv2d(top, channels, 3, padding=1), nn.Tanh()]
        self.blocks[f"b{longer(resolution)}"] = LastBlock(UpBlock(top, top, known), *to_image)
        self.apply(initialise)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        self.check_labels(labels)
        x = z
        for name, block in self.blocks.items():
            x = block(x) if name == "b4" else block(x, labels)
        return x


class LastBlock(nn.Sequential):
    """The last block of G: an `UpBlock`, which may take labels, and what makes an image of it."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self[0](x, labels)
        for layer in self[1:]:
            x = layer(x)
        return x


class DownBlock(nn.Module):
    """(ReLU-)conv-ReLU-conv(-pool) with a 1x1 shortcut; `first` leaves out the opening ReLU."""

    def __init__(self, inputs: int, outputs: int, *, down: bool, first: bool, sn: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else None
        self.apply(initialise)
        for conv in (self.conv1, self.conv2, self.skip):
            if conv is not None:
                spectral(conv, sn)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + (x if self.skip is None else self.skip(x))


class Head(nn.Module):
    """A residual block at 4 px, summed over positions, to one logit; with classes, by projection too. `[N, C, 4, 4] -> [N]`"""

    def __init__(self, inputs: int, sn: bool, classes: int) -> None:
        super().__init__()
        self.block = DownBlock(inputs, inputs, down=False, first=False, sn=sn)
        self.linear = nn.Linear(inputs, 1)
        initialise(self.linear)
        spectral(self.linear, sn)
        self.project = Projection(classes, inputs, spectral_norm=sn) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        features = F.relu(self.block(x)).sum((2, 3))
        logits = self.linear(features).flatten()
        return logits if self.project is None else logits + self.project(features, labels)


class Discriminator(Network):
    """Images `[N, channels, height, width]` in [-1, 1] to logits `[N]`."""

    arch, role = "resnet", "D"

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
            first = size * 2 == longer(resolution)
            block = DownBlock(previous, widths[size], down=True, first=first, sn=spectral_norm)
            self.blocks[f"b{size * 2}"] = block
            previous = widths[size]
        self.blocks["b4"] = Head(previous, spectral_norm, known)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self.check_labels(labels)
        for name, block in self.blocks.items():
            x = block(x, labels) if name == "b4" else block(x)
        return x


def initialise(module: nn.Module) -> None:
    """Glorot uniform with zero biases, gain sqrt(2) in 3x3 convolutions."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight, gain=2**0.5 if module.kernel_size[0] > 1 else 1.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def build(role: str, **config) -> Network:
    return Generator(**config) if role == "G" else Discriminator(**config)
