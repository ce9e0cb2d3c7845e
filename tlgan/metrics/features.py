"""What metrics compute on: feature vectors of images, and the seam every feature extractor fills.

Legend: N, M images; C channels; H, W pixels; D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tlgan.errors import DataError

CHUNK = 256  # images handed to an extractor at once, however a stream was cut: features don't depend on the cutting


class Extractor(Protocol):
    """Maps images to features. Equal `digest`s give equal features for equal images.

    One that knows classes also has `outputs(images)`: `{"features": [N, D], "classes": [N, K]}`, the latter logits.
    """

    name: str
    protocol: dict[str, Any]  # JSON-able: what a number must say about the features it was computed on
    digest: str  # sha256 hex of the weights and the preprocessing

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32 [N, D] on the CPU."""
        ...


class Metric(Protocol):
    """A row of the METRICS table: a number from the inputs that the row names, with its estimator named.

    Most take the features of the reference [N, D] and of the generated images [M, D]; see `materials` for the others.
    """

    protocol: dict[str, Any]

    def __call__(self, *inputs: np.ndarray) -> float: ...


def estimator(**protocol: Any) -> Callable[[Any], Any]:
    """Decorator: attaches `protocol`, the facts that make two numbers of this metric comparable."""

    def attach(function: Any) -> Any:
        function.protocol = protocol
        return function

    return attach


def check_features(real: np.ndarray, fake: np.ndarray, *, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as float64 arrays. Raises `DataError` for wrong shapes, NaN or infinity, or too few samples."""
    pair = {"real": np.asarray(real, dtype=np.float64), "fake": np.asarray(fake, dtype=np.float64)}
    for name, features in pair.items():
        if features.ndim != 2 or features.shape[1] == 0:
            raise DataError(f"{name} features: expected an array [samples, features]; received shape {features.shape}")
        if len(features) < at_least:
            raise DataError(
                f"{name} features: this metric needs at least {at_least} samples; received {len(features)}",
                hint="use more images (`evaluation.samples` for generated ones, `data.limit` for real ones)",
            )
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise DataError(
                f"{name} features: {len(bad)} of {len(features)} samples hold NaN or infinity, the first is {bad[0]}",
                hint="the images or the extractor's weights are broken: look at the samples",
            )
    if pair["real"].shape[1] != pair["fake"].shape[1]:
        raise DataError(
            f"real and fake features differ in length: {pair['real'].shape[1]} and {pair['fake'].shape[1]}",
            hint="compute both with the same extractor",
        )
    return pair["real"], pair["fake"]


def check_images(images: Tensor, what: str = "images") -> Tensor:
    """`images` itself when it is uint8 [N, 1 to 4, H, W]. Raises `DataError` otherwise."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 2, 3, 4):
        raise DataError(
            f"{what}: expected uint8 [N, 1 to 4, H, W]; received {str(images.dtype).removeprefix('torch.')} "
            f"{list(images.shape)}"
        )
    return images


def rechunk(stream: Iterable[Tensor], size: int = CHUNK) -> Iterator[Tensor]:
    """The images of `stream` in batches of exactly `size` (the last may be smaller), in the same order."""
    held: list[Tensor] = []
    count = 0
    for images in stream:
        held.append(images)
        count += len(images)
        if count >= size:
            joined = torch.cat(held)
            whole = count - count % size
            yield from joined[:whole].split(size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield torch.cat(held)


def extract(extractor: Extractor, stream: Iterable[Tensor]) -> np.ndarray:
    """Features float32 [N, D] of all images in `stream` (uint8 [n, C, H, W] batches); [0, 0] when it is empty."""
    parts = [extractor(check_images(images)).numpy() for images in rechunk(stream)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
