"""FID: closed forms, rank-deficient covariances, agreement with torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from tlgan.errors import DataError
from tlgan.metrics.frechet import fid, frechet_distance


def torch_fidelity_fid(real: np.ndarray, fake: np.ndarray) -> float:
    stats = [fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real)]
    return fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]


def whitened(n: int, d: int, seed: int) -> np.ndarray:
    """Samples whose mean is exactly 0 and whose covariance (1 / (n - 1)) is exactly the identity."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_gaussians_with_commuting_covariances_have_the_closed_form() -> None:
    m1, m2 = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    s1, s2 = np.array([4.0, 1.0, 9.0]), np.array([1.0, 16.0, 9.0])
    expected = np.square(m1 - m2).sum() + np.square(np.sqrt(s1) - np.sqrt(s2)).sum()
    assert frechet_distance(m1, np.diag(s1), m2, np.diag(s2)) == pytest.approx(expected, rel=1e-12)


def test_gaussians_with_covariances_that_do_not_commute() -> None:
    c1, c2 = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    # tr sqrt(M) of a 2x2 matrix with positive eigenvalues is sqrt(tr M + 2 sqrt(det M))
    product = c1 @ c2
    overlap = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(c1 + c2) - 2 * overlap
    assert frechet_distance(np.zeros(2), c1, np.zeros(2), c2) == pytest.approx(expected, rel=1e-12)


def test_samples_with_exact_moments() -> None:
    real, fake = whitened(300, 5, seed=0), 3 * whitened(400, 5, seed=1) + 2
    assert fid(real, fake) == pytest.approx(5 * 2**2 + 5 * (3 - 1) ** 2, rel=1e-10)


def test_covariance_divides_by_n_minus_1() -> None:
    real, fake = np.array([[-1.0], [1.0]]), np.array([[-2.0], [2.0]])  # variances 2 and 8
    assert fid(real, fake) == pytest.approx((np.sqrt(8) - np.sqrt(2)) ** 2, rel=1e-12)


def test_equal_sets_are_at_zero_and_a_shift_adds_its_square(normal) -> None:
    x = normal(200, 16, seed=3)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    assert fid(x, x + 0.5) == pytest.approx(16 * 0.25, rel=1e-9)


def test_fewer_samples_than_features(normal) -> None:
    x, y = normal(10, 64, seed=4), normal(12, 64, seed=5, shift=1)
    assert fid(x, x) == pytest.approx(0, abs=1e-5)
    assert fid(x, x + 1) == pytest.approx(64, rel=1e-6)
    assert fid(x, y) == pytest.approx(torch_fidelity_fid(x, y), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(500, 400, 8), (300, 300, 64), (900, 700, 32)])
def test_agrees_with_torch_fidelity(normal, n: int, m: int, d: int) -> None:
    mix = normal(d, d, seed=9)
    real, fake = normal(n, d, seed=6) @ mix, (normal(m, d, seed=7, scale=1.3) + 0.2) @ mix
    assert fid(real, fake) == pytest.approx(torch_fidelity_fid(real, fake), rel=1e-8)
    single = torch_fidelity_fid(real.astype(np.float32), fake.astype(np.float32))
    assert fid(real.astype(np.float32), fake.astype(np.float32)) == pytest.approx(single, rel=1e-3)


def test_mistakes_are_said_clearly(normal) -> None:
    x = normal(20, 4, seed=8)
    broken = x.copy()
    broken[7, 2] = np.nan
    with pytest.raises(DataError, match=r"fake features: 1 of 20 samples hold NaN or infinity, the first is 7"):
        fid(x, broken)
    with pytest.raises(DataError, match=r"real features: this metric needs at least 2 samples; received 1"):
        fid(x[:1], x)
    with pytest.raises(DataError, match=r"differ in length: 4 and 3"):
        fid(x, x[:, :3])
    with pytest.raises(ValueError, match=r"expected an array \[samples, features\]; received shape \(4,\)"):
        fid(x, x[0])
