"""KID: the definition written out, unbiasedness, torch-fidelity's estimator draw by draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from tlgan.errors import DataError
from tlgan.metrics import kernel
from tlgan.metrics.kernel import kid


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Plain loops over pairs."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    within = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within += sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def torch_fidelity_kid(real: np.ndarray, fake: np.ndarray, subsets: int, size: int, seed: int = 2020) -> float:
    options = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": seed, "verbose": False}
    return kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), **options)[
        "kernel_inception_distance_mean"
    ]


def test_is_the_definition(normal) -> None:
    x, y = normal(9, 5, seed=0), normal(7, 5, seed=1, shift=0.7)
    assert kid(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)


def test_point_masses_have_the_closed_form() -> None:
    x, y = np.zeros((3, 1)), np.full((4, 1), 2.0)  # k(0,0) = 1, k(2,2) = 5^3, k(0,2) = 1
    assert kid(x, y) == pytest.approx(1 + 125 - 2, rel=1e-12)


def test_a_slab_at_a_time_and_by_moments_give_the_same_number(normal, monkeypatch) -> None:
    x, y = normal(300, 4, seed=2), normal(50, 4, seed=3, shift=0.3)
    assert kernel._sum_by_moments(x) == pytest.approx(kernel._kernel_sum(x, x), rel=1e-12)
    whole = kid(x, y)
    monkeypatch.setattr(kernel, "_ELEMENTS", 130)  # slabs of 8 rows for moments, 2 for pairs; neither divides 300
    assert kid(x, y) == pytest.approx(whole, rel=1e-12)


def test_is_unbiased_where_the_biased_estimate_is_not(normal) -> None:
    values = [kid(normal(40, 8, seed=s), normal(40, 8, seed=1000 + s)) for s in range(200)]
    error = np.std(values) / np.sqrt(len(values))
    bias_of_all_pairs = 2 * (2.0**3 - 1) / 40  # the diagonal's excess, divided by the number of samples
    assert abs(np.mean(values)) < 3 * error < bias_of_all_pairs / 5


def test_grows_with_the_shift(normal) -> None:
    x = normal(400, 8, seed=4)
    values = [kid(x, normal(400, 8, seed=5, shift=s)) for s in (0, 0.2, 0.5, 1.0)]
    assert values == sorted(values)
    assert abs(values[0]) < 0.1 * values[1]


@pytest.mark.parametrize("seed", [2020, 7])
def test_subsets_are_torch_fidelitys(normal, seed: int) -> None:
    real, fake = normal(500, 16, seed=6), normal(400, 16, seed=7, shift=0.1, scale=1.1)
    expected = torch_fidelity_kid(real, fake, subsets=12, size=150, seed=seed)
    assert kid(real, fake, subsets=12, subset_size=150, seed=seed) == pytest.approx(expected, rel=1e-9)
    single = real.astype(np.float32), fake.astype(np.float32)
    expected = torch_fidelity_kid(*single, subsets=12, size=150, seed=seed)
    assert kid(*single, subsets=12, subset_size=150, seed=seed) == pytest.approx(expected, rel=1e-3)


def test_one_subset_of_everything_is_the_default(normal) -> None:
    real, fake = normal(200, 16, seed=8), normal(200, 16, seed=9, shift=0.1)
    assert kid(real, fake) == pytest.approx(torch_fidelity_kid(real, fake, subsets=1, size=200), rel=1e-9)


def test_mistakes_are_said_clearly(normal) -> None:
    x = normal(20, 4, seed=10)
    with pytest.raises(DataError, match="needs at least 100 samples; received 20"):
        kid(x, x, subsets=2, subset_size=100)
    with pytest.raises(DataError, match=r"received subsets=0, subset_size=10"):
        kid(x, x, subsets=0, subset_size=10)
    with pytest.raises(DataError, match="NaN or infinity"):
        kid(np.full((4, 2), np.inf), x[:, :2])
