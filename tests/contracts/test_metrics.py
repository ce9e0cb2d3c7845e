"""What every metric in the table promises. A new metric is tested by its line in the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tlgan import registry
from tlgan.errors import DataError

METRICS = list(registry.METRICS)


def normal(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, 8))


def better(name: str, a: float, b: float) -> bool:
    return a < b if registry.METRICS.facts(name)["mode"] == "min" else a > b


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    def test_says_which_way_is_better_and_how_it_is_estimated(self, name: str) -> None:
        assert registry.METRICS.facts(name)["mode"] in ("min", "max")
        protocol = registry.METRICS.load(name).protocol
        assert protocol["estimator"]
        assert json.loads(json.dumps(protocol)) == protocol

    def test_the_same_distribution_is_better_than_another(self, name: str) -> None:
        metric = registry.METRICS.load(name)
        real = normal(300, seed=0)
        values = [metric(real, normal(300, seed=1, shift=shift)) for shift in (0.0, 0.8, 3.0)]
        assert better(name, values[0], values[1])
        assert better(name, values[1], values[2])

    def test_gives_a_float_from_float32_features_of_unlike_counts(self, name: str) -> None:
        value = registry.METRICS.load(name)(
            normal(40, seed=2).astype(np.float32), normal(30, seed=3).astype(np.float32)
        )
        assert type(value) is float
        assert np.isfinite(value)

    def test_the_order_of_samples_does_not_matter(self, name: str) -> None:
        metric = registry.METRICS.load(name)
        real, fake = normal(60, seed=4), normal(50, seed=5, shift=0.5)
        mixed = np.random.default_rng(6)
        assert metric(mixed.permutation(real), mixed.permutation(fake)) == pytest.approx(metric(real, fake), rel=1e-9)

    def test_features_are_left_as_they_were(self, name: str) -> None:
        real, fake = normal(20, seed=7), normal(20, seed=8)
        before = real.copy(), fake.copy()
        registry.METRICS.load(name)(real, fake)
        np.testing.assert_array_equal(real, before[0])
        np.testing.assert_array_equal(fake, before[1])

    def test_few_samples_of_many_features(self, name: str) -> None:
        wide = np.random.default_rng(9).normal(size=(2, 12, 100))
        assert np.isfinite(registry.METRICS.load(name)(wide[0], wide[1]))

    def test_unusable_features_are_refused(self, name: str) -> None:
        metric, good = registry.METRICS.load(name), normal(20, seed=10)
        broken = good.copy()
        broken[3] = np.nan
        for real, fake in [(good, broken), (broken, good), (good, good[:1]), (good[:1], good), (good, good[:, :4])]:
            with pytest.raises(DataError):
                metric(real, fake)
