"""A small convolutional classifier; its penultimate layer is the embedded feature extractor of the metrics.

Strided convolutions with batch norm and leaky ReLU, a 1x1 convolution to the embedding, global average pooling, a
linear head. The embedding's batch norm has no learned scale: features keep about the same magnitude whatever the seed
and the length of the training, and so do metrics on them. Any resolution from 8 px.

Legend: N images, C channels, F features, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from tlgan.errors import DataError
from tlgan.models.blocks import Network
from tlgan.registry import blocks_at
from tlgan.shapes import Resolution, sides


class ConvNet(Network):
    """Images `[N, C, height, width]` in [-1, 1] to logits `[N, K]`.

    `blocks` holds all parameters, from the image side: `conv1`, `conv2`, ... (each halves the side and doubles the
    width, up to 8 times), `embed`, `head`. `config` rebuilds the network: `ConvNet(**network.config)`.
    Raises `DataError` for images below 8 px.
    """

    arch, role = "convnet", "C"

    def __init__(
        self, *, resolution: Resolution, channels: int, classes: int, width: int = 32, features: int = 64
    ) -> None:
        super().__init__()
        if min(sides(resolution)) < 8:
            raise DataError(f"the classifier is built for images of 8 px and more; received {resolution} px")
        self.config = {
            "resolution": resolution,
            "channels": channels,
            "classes": classes,
            "width": width,
            "features": features,
        }
        self.blocks = nn.ModuleDict()
        previous = channels
        for level in range(blocks_at(resolution)):
            out = width * min(2**level, 8)
            self.blocks[f"conv{level + 1}"] = _conv(previous, out, size=3, stride=2)
            previous = out
        self.blocks["embed"] = _conv(previous, features, size=1, stride=1, scaled=False)
        self.blocks["head"] = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """`[N, F]`: the embedding averaged over positions; its mean square is about 0.25 on images as trained on."""
        for name, block in self.blocks.items():
            if name != "head":
                x = block(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks["head"](self.features(x))


def _conv(channels: int, out: int, *, size: int, stride: int, scaled: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(out, affine=scaled),
        nn.LeakyReLU(0.2, inplace=True),
    )
