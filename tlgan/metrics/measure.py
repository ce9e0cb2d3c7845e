"""Metrics of generated images against a reference dataset, each number with the protocol it was taken under."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from tlgan import registry
from tlgan.errors import DataError
from tlgan.metrics.features import Extractor, Metric, check_images, extract
from tlgan.metrics.protocol import MetricValue, check_comparable, compare, same_protocol
from tlgan.metrics.reference import reference_features

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset

__all__ = ["MetricValue", "check_comparable", "compare", "measure", "reference_features", "same_protocol"]


def measure(
    names: list[str],
    images: Iterable[Tensor],
    dataset: Dataset,
    extractor: Extractor,
    *,
    seed: int,
    ema: bool = True,
    cache_dir: Path | None = None,
) -> list[MetricValue]:
    """The metrics `names`, in that order, of a stream of generated uint8 [n, C, H, W] batches.

    Features are computed once for all metrics, in batches of their own, so that values don't depend on how the stream
    was cut. `seed` and `ema` say how the images were made, and are recorded. All of `dataset` is the reference.
    Raises `SpecError` for an unknown metric; `DataError` for images unlike the reference in shape, too few of them, or
    features that are not finite.
    """
    metrics: dict[str, Metric] = {name: registry.METRICS.load(name) for name in names}
    shape = list(dataset.images.shape[1:])
    fake = extract(extractor, _checked(images, shape))
    if len(fake) == 0:
        raise DataError("no generated images to measure", hint="ask for more samples")
    real = reference_features(dataset, extractor, cache_dir)
    taken = {
        **extractor.protocol,
        "extractor_digest": extractor.digest,
        "image": "x".join(map(str, shape)),
        "quantised": "uint8",
        "reference": dataset.digest,
        "samples_real": len(real),
        "samples_fake": len(fake),
        "seed": seed,
        "ema": ema,
    }
    return [MetricValue(name, float(m(real, fake)), {**taken, **m.protocol}) for name, m in metrics.items()]


def _checked(images: Iterable[Tensor], shape: list[int]) -> Iterator[Tensor]:
    for number, batch in enumerate(images):
        check_images(batch, f"generated images, batch {number}")
        if list(batch.shape[1:]) != shape:
            raise DataError(
                f"generated images are {list(batch.shape[1:])}, the reference is {shape} (channels, height, width)",
                hint="set `resolution` and `channels` of the reference data to those of the generator",
            )
        yield batch
