"""InceptionV3 as torch-fidelity has it (the TensorFlow weights of 2015-12-05), with the two resizes that numbers are published
under. They differ by more than many papers' gains, so they are two extractors, and numbers refuse comparison.

    inception          bilinear as TensorFlow 1.x did it, which aliases: the original FID
    inception_clean    bicubic and antialiased, in float: Parmar et al. 2022, clean-fid, https://arxiv.org/abs/2104.11222
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlgan.errors import BackendError, DataError
from tlgan.metrics.extractors import digest_of_network, resized, to_channels
from tlgan.metrics.features import check_images
from tlgan.metrics.weights import read_weights

SIDE = 299
LAYERS = ["2048", "logits_unbiased"]


class InceptionFeatures:
    """The 2048 pool features, and the logits without bias of 1008 classes.

    `weights` is a local file in torch-fidelity's format; None: its release file, kept in torch's hub folder and
    downloaded when missing. Raises `NotFound`, `DataError` (not these weights) or `BackendError` (no network).
    """

    name = "inception"
    resize = "bilinear as TensorFlow 1.x to 299 px"

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        file = _downloaded_weights() if weights is None else weights
        read_weights(
            file, "Inception", _where()
        )  # refuses what is no plain dictionary before torch-fidelity unpickles it
        try:
            network = FeatureExtractorInceptionV3("inception", LAYERS, feature_extractor_weights_path=str(file))
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise DataError(f"{file} does not hold torch-fidelity's InceptionV3: {first}", hint=_where()) from error
        self.device = torch.device(device)
        self._network = network.to(self.device)
        preprocessing = {"resize": self.resize, "channels": 3, "layer": LAYERS[0]}
        self.digest = digest_of_network(network, {"arch": "inception-v3", **preprocessing})
        self.protocol: dict[str, Any] = {"extractor": self.name, "extractor_digest": self.digest, **preprocessing}

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 to 4, H, W] to float32 [N, 2048] on the CPU. RGB goes in as it is, grey is repeated, alpha is over white."""
        return self.outputs(images)["features"]

    @torch.no_grad()
    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """`features` [N, 2048] and `classes`, the logits [N, 1008]."""
        images = check_images(images)
        if images.shape[1] in (2, 4):
            images = to_channels(images.float(), 3).round().to(torch.uint8)
        parts = [self._look(part.to(self.device)) for part in images.expand(-1, 3, -1, -1).split(64)]
        features, classes = (torch.cat(rows).cpu() for rows in zip(*parts, strict=True))
        return {"features": features, "classes": classes}

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, classes = self._network(images)
        return features, classes


class CleanInceptionFeatures(InceptionFeatures):
    """The same network on images that were resized without aliasing or rounding."""

    name = "inception_clean"
    resize = "bicubic antialiased to 299 px, not rounded"

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (resized(images.float(), SIDE) - 128) / 128
        layers = list(self._network.children())
        features = nn.Sequential(*layers[:-1])(x).flatten(1)
        return features, features @ layers[-1].weight.T


def _url() -> str:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return str(URL_INCEPTION_V3)


def _where() -> str:
    return (
        f"get {_url()} (91 MiB) where there is a network, and pass it as `extractor: inception:/path/to/the/file.pth`"
    )


def _downloaded_weights() -> Path:
    """torch-fidelity's release file; its name ends in the first 8 digits of its sha256, which are checked."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / _url().rpartition("/")[2]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_url(), str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise BackendError(
                f"the Inception weights can't be downloaded to {file}: {error}", hint=_where()
            ) from error
    return file
