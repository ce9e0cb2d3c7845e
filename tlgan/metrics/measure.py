"""Metrics of generated images against a reference dataset, each number with the protocol it was taken under."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tlgan import registry
from tlgan.distributed import World
from tlgan.metrics.features import Extractor
from tlgan.metrics.materials import Materials
from tlgan.metrics.paths import Paths
from tlgan.metrics.pictures import Generated, Given
from tlgan.metrics.protocol import MetricValue, check_comparable, compare, named, same_protocol
from tlgan.metrics.reference import reference_features
from tlgan.models.blocks import Network

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset

__all__ = ["MetricValue", "check_comparable", "compare", "measure", "reference_features", "same_protocol"]


def measure(
    names: list[str],
    images: Iterable[Tensor] | Generated,
    dataset: Dataset,
    extractor: Extractor,
    *,
    seed: int,
    ema: bool = True,
    training: Dataset | None = None,
    flipped: bool = False,
    critic: Network | None = None,
    perceptual: str = "extractor",
    world: World | None = None,
    cache_dir: Path | None = None,
) -> list[MetricValue]:
    """The metrics `names`, in that order, of generated images: a stream of uint8 [n, C, H, W] batches, or `Generated`,
    which all ranks of `world` share out among themselves. All ranks call it; rank 0 gets the values, the others `[]`.

    What metrics are computed from is made once for all of them, in batches of its own: values depend neither on how the
    stream was cut nor on the number of ranks. `seed` and `ema` say how the images were made, and are recorded. All of
    `dataset` is the reference; `training` (the images trained on, mirrored at random if `flipped`), `critic`, a
    discriminator, and `perceptual`, a distance, are asked for by the metrics whose row in the table says so.
    Raises `SpecError` for an unknown metric or one that lacks what it needs; `DataError` for images unlike the reference
    in shape, too few of them, or features that are not finite.
    """
    metrics: dict[str, Any] = {name: registry.METRICS.load(name) for name in names}
    inputs = {name: registry.METRICS.facts(name)["inputs"] for name in names}
    world = world or World()
    fake = images if isinstance(images, Generated) else Given(images)
    materials = Materials(fake, dataset, extractor, training, flipped, critic, perceptual, world, cache_dir)
    found = materials.collect(one for name in names for one in inputs[name])
    if not world.is_main:
        return []
    values = []
    for name, metric in metrics.items():
        parts = [found[one] for one in inputs[name]]
        about = _protocol(inputs[name], found, materials) | {"seed": seed, "ema": ema} | metric.protocol
        about["protocol"] = named(name, about["samples_fake"])
        values.append(MetricValue(name, float(metric(*parts)), about))
    return values


def _protocol(inputs: tuple[str, ...], found: dict[str, Any], materials: Materials) -> dict[str, Any]:
    """The facts of what a metric was computed from, and of nothing else."""
    about: dict[str, Any] = {"image": "x".join(map(str, materials.real.images.shape[1:])), "quantised": "uint8"}
    views = {one.partition(".")[2] for one in inputs}
    if views & {"features", "classes"}:
        about |= materials.extractor.protocol | {"extractor_digest": materials.extractor.digest}
    if "critic" in views:
        about |= {"critic": "the model's own, in eval mode, unaugmented"}
    for one in inputs:
        name = one.partition(".")[0]
        if name == "fake":
            about["samples_fake"] = len(found[one])
        elif name == "real":
            about |= {"reference": materials.real.digest, "samples_real": len(materials.real)}
        elif name == "training":
            about |= _training_of(materials)
        elif name in ("path", "diversity"):
            about |= materials.distance.protocol | {"quantised": "no" if name == "path" else "uint8"}
            assert isinstance(materials.fake, Generated), "checked"
            about["samples_fake"] = materials.fake.count
            about |= {"space": Paths(materials.fake).space} if name == "path" else _training_of(materials)
        elif name == "mirrored":
            about["mirrored"] = materials.flipped
    return about


def _training_of(materials: Materials) -> dict[str, Any]:
    assert materials.training is not None, "checked"
    return {"training": materials.training.digest, "samples_training": len(materials.training)}
