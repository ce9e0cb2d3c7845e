"""Features learned on glyphs judge handwritten digits: metrics are near 0 for real ones and grow with every corruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tlgan.artifact import save_networks
from tlgan.data import Dataset, prepare
from tlgan.learners.classifier import train_classifier
from tlgan.metrics.extractors import ClassifierFeatures, open_extractor
from tlgan.metrics.measure import measure
from tlgan.random import generator
from tlgan.recipe import ClassifierModelSpec, ClassifierRecipe, ClassifierTrainSpec, DataSpec


@pytest.fixture(scope="module")
def glyphs() -> Dataset:
    return prepare(DataSpec(source="glyphs"), resolution=32)


@pytest.fixture(scope="module")
def score_and_path(glyphs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], Path]:
    """A third of the default training with half of the default width: about 3 s."""
    recipe = ClassifierRecipe(
        data=DataSpec(source="glyphs"),
        model=ClassifierModelSpec(width=16),
        train=ClassifierTrainSpec(kimg=20, batch_size=64, seed=0),
    )
    network, score = train_classifier(recipe, glyphs)
    path = tmp_path_factory.mktemp("classifier")
    save_networks(path, {"C": network}, type="classifier")
    return score, path


@pytest.fixture(scope="module")
def extractor(score_and_path: tuple[dict[str, float], Path]) -> ClassifierFeatures:
    opened = open_extractor("embedded", artifact_path=score_and_path[1])
    assert isinstance(opened, ClassifierFeatures)
    return opened


@pytest.fixture(scope="module")
def reference() -> Dataset:
    return prepare(DataSpec(source="digits", split="test"), resolution=32)


@pytest.fixture(scope="module")
def other() -> Dataset:
    """The half of the digits that is not the reference."""
    return prepare(DataSpec(source="digits", split="train"), resolution=32)


def to_uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def blurred(x: Tensor, sigma: float) -> Tensor:
    taps = torch.exp(-torch.arange(-6.0, 7).square() / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    return to_uint8(F.conv2d(F.conv2d(x.float(), taps, padding=(0, 6)), taps.mT, padding=(6, 0)))


def noisy(x: Tensor, strength: float) -> Tensor:
    return to_uint8(x + torch.randn(x.shape, generator=generator(0, "noise")) * strength * 255)


def warped(x: Tensor, strength: float) -> Tensor:
    """Elastic: a smooth random displacement field of `strength` half sides."""
    field = F.interpolate(torch.randn(len(x), 2, 6, 6, generator=generator(0, "warp")), size=(32, 32), mode="bicubic")
    still = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return to_uint8(F.grid_sample(x.float(), still + strength * field.permute(0, 2, 3, 1), align_corners=False))


@pytest.fixture(scope="module")
def kid_of(extractor: ClassifierFeatures, reference: Dataset, tmp_path_factory) -> Callable[[Tensor], float]:
    cache = tmp_path_factory.mktemp("cache")
    return lambda x: measure(["kid"], [x], reference, extractor, seed=0, cache_dir=cache)[0].value


@pytest.fixture(scope="module")
def real(other: Dataset) -> Tensor:
    return torch.from_numpy(np.array(other.images))


@pytest.fixture(scope="module")
def floor(kid_of: Callable[[Tensor], float], real: Tensor) -> float:
    """KID of real digits against other real digits."""
    return kid_of(real)


def test_the_classifier_learned_scripts(score_and_path: tuple[dict[str, float], Path]) -> None:
    score = score_and_path[0]
    assert score["accuracy"] > score["majority"] + 0.02
    assert score["f1"] > 0.15  # always naming the commonest script gives 0.04


def test_real_digits_are_near_zero(
    floor: float, extractor: ClassifierFeatures, reference: Dataset, real: Tensor
) -> None:
    assert abs(floor) < 0.002
    values = {v.name: v.value for v in measure(["precision", "recall"], [real], reference, extractor, seed=0)}
    assert values["precision"] > 0.85
    assert values["recall"] > 0.85


@pytest.mark.parametrize(
    ("corrupt", "strengths"),
    [(blurred, (0.7, 1.2, 2.0, 3.0)), (noisy, (0.05, 0.1, 0.2, 0.4)), (warped, (0.05, 0.1, 0.15, 0.25))],
)
def test_grows_with_corruption(
    kid_of: Callable[[Tensor], float],
    real: Tensor,
    floor: float,
    corrupt: Callable[[Tensor, float], Tensor],
    strengths: tuple[float, ...],
) -> None:
    values = [floor, *(kid_of(corrupt(real, s)) for s in strengths)]
    assert values == sorted(values)
    assert values[2] > 0.003
    assert values[-1] > 0.05


def test_grows_with_the_share_of_glyphs(
    kid_of: Callable[[Tensor], float], real: Tensor, floor: float, glyphs: Dataset
) -> None:
    wrong = torch.from_numpy(glyphs.images[np.linspace(0, len(glyphs) - 1, len(real), dtype=int)])
    values = [floor]
    for share in (0.1, 0.25, 0.5, 1.0):
        count = int(share * len(real))
        values.append(kid_of(torch.cat([wrong[:count], real[count:]])))
    assert values == sorted(values)
    assert values[-1] > 10 * values[1] > 0


def test_grows_with_dropped_digits(
    kid_of: Callable[[Tensor], float], real: Tensor, floor: float, other: Dataset
) -> None:
    values = [floor, *(kid_of(real[torch.from_numpy(other.labels < kept)]) for kept in (7, 3, 1))]
    assert values == sorted(values)
    assert values[2] > 0.02


def test_recall_sees_dropped_digits_and_precision_does_not(
    extractor: ClassifierFeatures, reference: Dataset, real: Tensor, other: Dataset
) -> None:
    some = real[torch.from_numpy(other.labels < 3)]
    values: dict[str, Any] = {
        v.name: v.value for v in measure(["precision", "recall"], [some], reference, extractor, seed=0)
    }
    assert values["precision"] > 0.85
    assert values["recall"] < 0.6


def test_features_use_many_directions_at_a_moderate_scale(extractor: ClassifierFeatures, real: Tensor) -> None:
    features = extractor(real).double()
    variances = torch.linalg.eigvalsh(features.T.cov())
    assert variances.sum() ** 2 / variances.square().sum() > 4  # effective number of directions
    assert variances[0] > 1e-5 * variances[-1]  # none is dead
    assert 0.05 < features.square().mean() < 1
