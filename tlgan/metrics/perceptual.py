"""Distances between images as people, or a network, see them: what diversity and path lengths are measured in.

    extractor         squared Euclidean distance of the features of `evaluation.extractor`
    lpips:<folder>    LPIPS 0.1 on VGG16 (Zhang et al. 2018, https://arxiv.org/abs/1801.03924), from a folder of two files

Images are float [N, C, H, W] of 0 to 255, not rounded: path lengths look at differences far below one level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tlgan.errors import DataError, NotFound, SpecError
from tlgan.metrics.extractors import digest_of_network, to_channels
from tlgan.metrics.features import Extractor
from tlgan.metrics.weights import load_into, read_weights

WHERE = (
    "put vgg16-397923af.pth (https://download.pytorch.org/models/vgg16-397923af.pth, 528 MB) and weights-vgg16-lpips.pth "
    "(https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth) into one folder where there "
    "is a network, and name it as `perceptual: lpips:/path/to/the/folder`"
)


class Distance(Protocol):
    """Equal `digest`s give equal distances."""

    protocol: dict[str, Any]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances [N] of the images in pairs, on the CPU."""
        ...


def open_distance(spec: str, extractor: Extractor, device: str | torch.device = "cpu") -> Distance:
    """The distance that `EvaluationSpec.perceptual` names. Raises `SpecError`, and what reading weights raises."""
    name, _, folder = spec.partition(":")
    return Lpips(Path(folder).expanduser(), device) if name == "lpips" else FeatureDistance(extractor)


class FeatureDistance:
    """Squared distance of an extractor's features. Raises `SpecError` for one that only takes whole levels."""

    def __init__(self, extractor: Extractor) -> None:
        features = getattr(extractor, "features_of", None)
        if features is None:
            raise SpecError(
                f"extractor {extractor.name} gives no distances between images",
                hint="use `extractor: embedded`, or name `perceptual: lpips:/path/to/a/folder`",
            )
        self._features = features
        self.protocol = {"perceptual": "extractor", "squared": True, **extractor.protocol}

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = self._features(torch.cat([x, y])).chunk(2)
        distances: Tensor = (a - b).square().sum(dim=1).cpu()
        return distances


class Lpips:
    """LPIPS with the weights in `folder`. Raises `NotFound` or `DataError`."""

    SLICES = (4, 9, 16, 23, 30)  # of VGG16's layers: relu1_2, 2_2, 3_3, 4_3, 5_3
    WIDTHS = (64, 128, 256, 512, 512)
    SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # on images in [-1, 1]

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        from torchvision.models import vgg16

        trunk, file = _state(folder, "vgg16-*.pth")
        self._layers: nn.Sequential = vgg16(weights=None).features[: self.SLICES[-1]]
        own = {name.removeprefix("features."): t for name, t in trunk.items() if name.startswith("features.")}
        load_into(self._layers, own, file, "torchvision's VGG16", WHERE)
        linear, file = _state(folder, "*lpips*.pth", "vgg.pth")
        try:
            weights = [linear[f"lin{level}.model.1.weight"].view(width) for level, width in enumerate(self.WIDTHS)]
        except (KeyError, RuntimeError) as error:
            raise DataError(f"{file} does not hold LPIPS's linear layers: {error}", hint=WHERE) from error
        self.device = torch.device(device)
        self._weights = [w.float().to(self.device) for w in weights]
        digest = digest_of_network(self._layers, {"arch": "lpips-0.1-vgg16", "lin": [w.tolist() for w in weights]})
        self._layers.eval().requires_grad_(False).to(self.device)
        self.protocol: dict[str, Any] = {"perceptual": "lpips 0.1 vgg16", "perceptual_digest": digest, "resize": "none"}

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances [N] on the CPU, with gradients where an image asks for them."""
        x = torch.cat([self._prepare(x), self._prepare(y)])
        total = torch.zeros(len(x) // 2, device=self.device)
        start = 0
        for end, weights in zip(self.SLICES, self._weights, strict=True):
            x, start = self._layers[start:end](x), end
            a, b = (x / (x.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
            total = total + ((a - b).square() * weights[:, None, None]).sum(1).mean((1, 2))
        return total.cpu()

    def _prepare(self, images: Tensor) -> Tensor:
        x = to_channels(images.to(self.device).float(), 3) / 127.5 - 1
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (self.SHIFT, self.SCALE))
        return (x - shift) / scale


def _state(folder: Path, *patterns: str) -> tuple[dict[str, Tensor], Path]:
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    if not files:
        raise NotFound(f"LPIPS: {folder} holds no file {' or '.join(patterns)}", hint=WHERE)
    return read_weights(files[0], "LPIPS", WHERE), files[0]
