"""Feature extractors: a classifier's penultimate layer, and Inception as torch-fidelity has it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlgan import registry
from tlgan.artifact import load_network
from tlgan.errors import BackendError, DataError, NotFound, SpecError
from tlgan.metrics.features import CHUNK, Extractor, check_images
from tlgan.recipe import canonical_json
from tlgan.shapes import sides

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def open_extractor(
    spec: str,
    *,
    artifact_path: Path | None = None,
    artifact_ref: str | None = None,
    device: str | torch.device = "cpu",
) -> Extractor:
    """The extractor that `EvaluationSpec.extractor` names: `embedded`, `classifier:<ref>`, `inception[:<weights>]`.

    `artifact_path` is the directory of the pulled classifier for the first two, `artifact_ref` the name to record.
    Raises `SpecError` for an unknown name or a missing artifact, and what the extractors raise.
    """
    name, _, argument = spec.partition(":")
    registry.EXTRACTORS.check(name)
    if name == "inception":
        return InceptionFeatures(Path(argument).expanduser() if argument else None, device)
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
        self.digest = _digest(network, {"arch": network.arch, "config": network.config, **preprocessing})
        self.protocol: dict[str, Any] = {"extractor": name, "extractor_digest": self.digest, **preprocessing}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 to 4, H, W] to float32 [N, F] on the CPU."""
        return self.outputs(images)["features"]

    @torch.no_grad()
    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """`features` [N, F] and `classes`, the logits [N, K]."""
        features = [self._network.features(self._prepare(part)) for part in check_images(images).split(CHUNK)]
        classes = [self._network.blocks["head"](part) for part in features]
        return {"features": torch.cat(features).float().cpu(), "classes": torch.cat(classes).float().cpu()}

    def _prepare(self, images: Tensor) -> Tensor:
        x = to_channels(images.to(self.device).float(), self._channels)
        if x.shape[-2:] != sides(self._size):
            x = F.interpolate(x, size=sides(self._size), mode="bilinear", antialias=True, align_corners=False)
        return x / 127.5 - 1


class InceptionFeatures:
    """The 2048 pool features of InceptionV3 (2015-12-05, TensorFlow) by torch-fidelity, with its own resize to 299 px.

    `weights` is a local file in torch-fidelity's format; None: its release file, kept in torch's hub folder and
    downloaded when missing. Raises `NotFound`, `DataError` (not these weights) or `BackendError` (no network).
    """

    LAYER = "2048"

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        file = _downloaded_weights() if weights is None else weights
        _check_weights(file)
        try:
            network = FeatureExtractorInceptionV3("inception", [self.LAYER], feature_extractor_weights_path=str(file))
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise DataError(f"{file} does not hold torch-fidelity's InceptionV3: {first}", hint=_where()) from error
        self.name = "inception"
        self.device = torch.device(device)
        self._network = network.to(self.device)
        preprocessing = {"resize": "bilinear as TensorFlow 1.x to 299 px", "channels": 3, "layer": self.LAYER}
        self.digest = _digest(network, {"arch": "inception-v3", **preprocessing})
        self.protocol: dict[str, Any] = {"extractor": self.name, "extractor_digest": self.digest, **preprocessing}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 to 4, H, W] to float32 [N, 2048] on the CPU. RGB goes in as it is, grey is repeated, alpha is over white."""
        images = check_images(images)
        if images.shape[1] in (2, 4):
            images = to_channels(images.float(), 3).round().to(torch.uint8)
        images = images.expand(-1, 3, -1, -1)
        return torch.cat([self._network(part.to(self.device))[0].cpu() for part in images.split(64)])


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


def _digest(network: nn.Module, about: dict[str, Any]) -> str:
    """sha256 hex over `about` and every tensor's name, type, shape and bytes."""
    total = hashlib.sha256(canonical_json(about))
    for name, tensor in sorted(network.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


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


def _check_weights(file: Path) -> None:
    """Refuses a file that is no plain dictionary of tensors, before torch-fidelity unpickles it."""
    if not file.is_file():
        raise NotFound(f"Inception weights {file}: there is no such file", hint=_where())
    try:
        state = torch.load(file, weights_only=True, map_location="cpu", mmap=False)
    except Exception as error:  # a broken or unsafe file raises whatever its bytes lead to
        raise DataError(f"{file} is not a file of weights: {str(error).splitlines()[0]}", hint=_where()) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{file} holds no dictionary of tensors", hint=_where())
