"""Density and coverage: cases drawn by hand, the expectations of the paper, an independent computation."""

from __future__ import annotations

import numpy as np
import pytest

from tlgan.errors import DataError
from tlgan.metrics import neighbours
from tlgan.metrics.neighbours import coverage, density, precision


def line(*points: float) -> np.ndarray:
    return np.array(points, dtype=np.float64)[:, None]


def test_on_a_line() -> None:
    real = line(0, 1, 3, 7)  # radii at k=1: 1, 1, 2, 4
    fake = line(0.5, 2.5, 100)  # 0.5 is in the balls of 0 and 1; 2.5 in those of 3 and of 7 (4.5 away: no)
    assert density(real, fake, k=1) == (2 + 1 + 0) / 3
    assert coverage(real, fake, k=1) == 3 / 4  # all but 7's ball
    assert coverage(real, line(100, 100), k=1) == density(real, line(100, 100), k=1) == 0


def test_density_counts_balls_where_precision_only_asks_for_one() -> None:
    real = np.concatenate([line(*np.linspace(0, 1, 20)), line(50)])  # one outlier with a huge ball
    at_outlier, in_crowd = np.full((30, 1), 20.0), np.full((30, 1), 0.5)
    assert precision(real, at_outlier, k=5) == precision(real, in_crowd, k=5) == 1
    assert density(real, at_outlier) == pytest.approx(1 / 5)
    assert density(real, in_crowd) > 1


def test_expectations_for_equal_distributions() -> None:
    n, k = 400, 5
    draws = [np.random.default_rng(seed).normal(size=(2, n, 6)) for seed in range(12)]
    expected = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    assert expected == pytest.approx(1 - 2**-k, abs=0.003)
    assert np.mean([coverage(real, fake) for real, fake in draws]) == pytest.approx(expected, abs=0.01)
    assert np.mean([density(real, fake) for real, fake in draws]) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(("n", "m", "k"), [(60, 40, 5), (30, 90, 3)])
def test_agrees_with_the_definition_written_out(normal, n: int, m: int, k: int) -> None:
    real, fake = normal(n, 4, seed=1), normal(m, 4, seed=2, shift=0.3)
    radii = np.sort(np.linalg.norm(real[:, None] - real, axis=2), axis=1)[:, k]
    inside = np.linalg.norm(real[:, None] - fake, axis=2) <= radii[:, None]
    assert density(real, fake, k=k) == pytest.approx(inside.sum() / (k * m))
    assert coverage(real, fake, k=k) == pytest.approx(inside.any(axis=1).mean())


def test_slabs_give_the_same_number(normal, monkeypatch) -> None:
    real, fake = normal(120, 4, seed=6), normal(100, 4, seed=7, shift=0.5)
    whole = density(real, fake), coverage(real, fake)
    monkeypatch.setattr(neighbours, "_ELEMENTS", 700)
    assert (density(real, fake), coverage(real, fake)) == whole


def test_mistakes_are_said_clearly(normal) -> None:
    x = normal(10, 4, seed=8)
    with pytest.raises(DataError, match="real features: this metric needs at least 6 samples; received 5"):
        density(x[:5], x)
    with pytest.raises(DataError, match="expected k >= 1; received 0"):
        coverage(x, x, k=0)
