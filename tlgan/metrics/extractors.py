"""Feature extractors: how one is opened, a classifier's penultimate layer, and what they all do to images.

The others are in `inception` and `dinov2`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlgan import registry
from tlgan.artifact import load_network
from tlgan.canonical import canonical_json
from tlgan.errors import SpecError
from tlgan.metrics.features import CHUNK, Extractor, check_images
from tlgan.shapes import sides

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def open_extractor(
    spec: str,
    *,
    artifact_path: Path | None = None,
    artifact_ref: str | None = None,
    device: str | torch.device = "cpu",
) -> Extractor:
    """The extractor that `EvaluationSpec.extractor` names: `embedded`, `classifier:<ref>`, `inception[:<weights>]`,
    `inception_clean[:<weights>]`, `dinov2:<weights>`.

    `artifact_path` is the directory of the pulled classifier for the first two, `artifact_ref` the name to record.
    Raises `SpecError` for an unknown name or a missing artifact, and what the extractors raise.
    """
    name, _, argument = spec.partition(":")
    registry.EXTRACTORS.check(name)
    if registry.EXTRACTORS.facts(name).get("weights"):
        opened: Extractor = registry.EXTRACTORS.load(name)(Path(argument).expanduser() if argument else None, device)
        return opened
    if artifact_path is None:
        raise SpecError(
            f"extractor {spec} needs a classifier artifact; received none",
            hint="train one with a spec of kind classifier, then use `extractor: classifier:<name>:<alias>`",
        )
    return ClassifierFeatures(Path(artifact_path), artifact_ref or spec, device)


class ClassifierFeatures:
    """Features of a trained classifier, a model directory that holds a network `C`.

    Images of another resolution are resized (bilinear, antialiased, in float and not rounded); grey is repeated to RGB,
    RGB becomes BT.601 luma. Raises `NotFound` or `IntegrityError` for a directory that is not such an artifact, and
    `SpecError` for one whose network has no features.
    """

    def __init__(self, path: Path, name: str, device: str | torch.device = "cpu") -> None:
        network: Any = load_network(path, "C")
        if not callable(getattr(network, "features", None)):
            raise SpecError(f"{path} holds a {type(network).__name__}, which gives no features; expected a classifier")
        self.name = name
        self.device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._size, self._channels = network.config["resolution"], network.config["channels"]
        preprocessing = {
            "resize": f"bilinear antialiased to {self._size} px, not rounded",
            "channels": self._channels,
            "range": "[-1, 1]",
        }
        self.digest = digest_of_network(network, {"arch": network.arch, "config": network.config, **preprocessing})
        self.protocol: dict[str, Any] = {"extractor": name, "extractor_digest": self.digest, **preprocessing}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 to 4, H, W] to float32 [N, F] on the CPU."""
        return self.outputs(images)["features"]

    @torch.no_grad()
    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """`features` [N, F] and `classes`, the logits [N, K]."""
        features = [self.features_of(part) for part in check_images(images).split(CHUNK)]
        classes = [self._network.blocks["head"](part) for part in features]
        return {"features": torch.cat(features).float().cpu(), "classes": torch.cat(classes).float().cpu()}

    @torch.no_grad()
    def features_of(self, images: Tensor) -> Tensor:
        """[N, F] on the device, of images of 0 to 255 that need not be whole numbers."""
        features: Tensor = self._network.features(self._prepare(images))
        return features

    def _prepare(self, images: Tensor) -> Tensor:
        x = to_channels(images.to(self.device).float(), self._channels)
        if x.shape[-2:] != sides(self._size):
            x = F.interpolate(x, size=sides(self._size), mode="bilinear", antialias=True, align_corners=False)
        return x / 127.5 - 1


def to_channels(x_nchw: Tensor, channels: int) -> Tensor:
    """Grey repeated to RGB, RGB weighted to grey; alpha, the last of 2 or 4 channels, over white. Floats of 0 to 255."""
    if x_nchw.shape[1] in (2, 4):
        colour, share = x_nchw[:, :-1], x_nchw[:, -1:] / 255
        x_nchw = colour * share + 255 * (1 - share)
    if x_nchw.shape[1] == channels:
        return x_nchw
    if channels == 3:
        return x_nchw.expand(-1, 3, -1, -1)
    return (x_nchw * x_nchw.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def resized(x_nchw: Tensor, side: int) -> Tensor:
    """Bicubic and antialiased, as Pillow does it on floats; neither rounded nor out of 0..255 (Parmar et al. 2022, clean-fid)."""
    if x_nchw.shape[-2:] == (side, side):
        return x_nchw
    return F.interpolate(x_nchw, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)


def digest_of_network(network: nn.Module, about: dict[str, Any]) -> str:
    """sha256 hex over `about` and every tensor's name, type, shape and bytes."""
    total = hashlib.sha256(canonical_json(about))
    for name, tensor in sorted(network.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()
