"""Stored feature statistics and their distances, against closed forms and the metrics themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tlgan.errors import DataError, IntegrityError
from tlgan.metrics.frechet import fid
from tlgan.metrics.statistics import FeatureStatistics, divergence, frechet, gather


def normal(mean: float, scale: float, count: int = 4000, size: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, scale, (count, size))


def exact(mean: list[float], variances: list[float]) -> FeatureStatistics:
    return FeatureStatistics(np.array(mean), np.diag(variances), 100)


def test_they_are_what_fid_is_made_of() -> None:
    real, fake = normal(0, 1), normal(0.5, 2, seed=1)
    assert frechet(gather([fake]), gather([real])) == pytest.approx(fid(real, fake), rel=1e-9)


def test_batches_do_not_matter() -> None:
    x = normal(0, 1, 50)
    whole, parts = gather([x]), gather([x[:7], x[7:7], x[7:]])
    assert np.array_equal(whole.covariance, parts.covariance)
    assert parts.count == 50


def test_the_divergence_of_gaussians_is_the_closed_form() -> None:
    """One dimension, floor f = 0.01 * 4: KL(N(1, 4+f) || N(3, 9+f))."""
    source, target = exact([3.0], [9.0]), exact([1.0], [4.0])
    p, q = 4.04, 9.04
    expected = 0.5 * (p / q + (3 - 1) ** 2 / q - 1 + np.log(q / p))
    assert divergence(source, target) == pytest.approx(expected, rel=1e-12)
    assert divergence(target, target) == 0


def test_a_wide_source_covers_a_narrow_target_and_not_the_reverse() -> None:
    wide, narrow = exact([0.0, 0.0], [9.0, 9.0]), exact([0.0, 0.0], [1.0, 1.0])
    assert divergence(wide, narrow) < divergence(narrow, wide)
    assert frechet(wide, narrow) == pytest.approx(frechet(narrow, wide))


def test_fewer_images_than_features_are_no_trouble() -> None:
    few = gather([normal(0, 1, 10, size=64)])
    assert np.isfinite(divergence(few, few))
    assert np.isfinite(divergence(gather([normal(1, 1, 10, size=64, seed=1)]), few))


def test_stored_bytes_come_back() -> None:
    found = gather([normal(0, 1, 20)], {"extractor": "embedded"})
    back = FeatureStatistics.from_bytes(found.to_bytes())
    assert np.array_equal(back.mean, found.mean)
    assert np.array_equal(back.covariance, found.covariance)
    assert (back.count, back.about) == (20, {"extractor": "embedded"})


@pytest.mark.parametrize("damage", ["cut", "text", "shape", "nan"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    good = gather([normal(0, 1, 20)])
    data = {
        "cut": good.to_bytes()[:200],
        "text": b"no archive",
        "shape": FeatureStatistics(good.mean[:2], good.covariance, 20).to_bytes(),
        "nan": FeatureStatistics(good.mean * np.nan, good.covariance, 20).to_bytes(),
    }[damage]
    with pytest.raises(IntegrityError, match="feature statistics"):
        FeatureStatistics.from_bytes(data)


def test_bad_features_are_told() -> None:
    with pytest.raises(DataError, match="at least 2"):
        gather([normal(0, 1, 1)])
    with pytest.raises(DataError, match="NaN"):
        gather([np.full((3, 2), np.nan)])
    with pytest.raises(DataError, match="differ in length"):
        frechet(exact([0.0], [1.0]), exact([0.0, 0.0], [1.0, 1.0]))
