"""What every metric in the table promises. A new metric is tested by its line in the table."""

from __future__ import annotations

import inspect
import json
from functools import partial

import numpy as np
import pytest

from tlgan import registry
from tlgan.errors import DataError

METRICS = list(registry.METRICS)
FEATURES = ("real.features", "fake.features")
DISTANCES = [m for m in METRICS if registry.METRICS.facts(m)["inputs"] == FEATURES and m != "duplicates"]


def normal(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, 8))


def inputs_of(name: str, n: int = 60, m: int = 50, seed: int = 0, dtype: type = np.float64) -> list[np.ndarray]:
    """One array an input: `m` rows for generated images, `n` for others; a column for what is one number an image."""
    arrays = []
    for number, one in enumerate(registry.METRICS.facts(name)["inputs"]):
        owner, _, view = one.partition(".")
        x = normal(
            m if owner in ("fake", "path", "diversity") else n, seed + number, shift=0.5 * (owner == "fake")
        ).astype(dtype)
        if view == "pairs":  # (cluster, distance)
            x = np.abs(x[:, :2]) * [4, 1]
            x[:, 0] = np.floor(x[:, 0])
        arrays.append(x[:, 0] if view in ("critic", "lengths") else x)
    return arrays


def better(name: str, a: float, b: float) -> bool:
    return a < b if registry.METRICS.facts(name)["mode"] == "min" else a > b


@pytest.mark.parametrize("name", DISTANCES)
def test_the_same_distribution_is_better_than_another(name: str) -> None:
    metric = registry.METRICS.load(name)
    real = normal(300, seed=0)
    values = [metric(real, normal(300, seed=1, shift=shift)) for shift in (0.0, 0.8, 3.0)]
    assert better(name, values[0], values[1])
    assert better(name, values[1], values[2])


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    def test_says_which_way_is_better_and_how_it_is_estimated(self, name: str) -> None:
        assert registry.METRICS.facts(name)["mode"] in ("min", "max")
        protocol = registry.METRICS.load(name).protocol
        assert protocol["estimator"]
        assert json.loads(json.dumps(protocol)) == protocol

    def test_names_an_input_for_each_argument(self, name: str) -> None:
        inputs, metric = registry.METRICS.facts(name)["inputs"], registry.METRICS.load(name)
        arguments = list(inspect.signature(metric).parameters.values())
        assert all(p.default in (inspect.Parameter.empty, None) for p in arguments[: len(inputs)])
        assert all(p.default is not inspect.Parameter.empty for p in arguments[len(inputs) :])

    def test_gives_a_float_from_float32_inputs_of_unlike_counts(self, name: str) -> None:
        value = registry.METRICS.load(name)(*inputs_of(name, 40, 30, dtype=np.float32))
        assert type(value) is float
        assert np.isfinite(value)

    def test_the_order_of_samples_does_not_matter(self, name: str) -> None:
        metric = registry.METRICS.load(name)
        if "splits" in metric.protocol:  # taken over consecutive parts of the images, by definition
            metric = partial(metric, splits=1)
        arrays, mixed = inputs_of(name, seed=4), np.random.default_rng(6)
        order = mixed.permutation(60)  # the same for all of other counts than fake: rows may belong together
        shuffled = [x[order] if len(x) == 60 else mixed.permutation(x) for x in arrays]
        assert metric(*shuffled) == pytest.approx(metric(*arrays), rel=1e-9)

    def test_inputs_are_left_as_they_were(self, name: str) -> None:
        arrays = inputs_of(name, 20, 20, seed=7)
        before = [x.copy() for x in arrays]
        registry.METRICS.load(name)(*arrays)
        for x, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(x, old)

    def test_what_is_not_finite_is_refused(self, name: str) -> None:
        for number, _ in enumerate(inputs_of(name)):
            arrays = inputs_of(name, seed=10)
            arrays[number][3] = np.nan
            with pytest.raises(DataError):
                registry.METRICS.load(name)(*arrays)

    def test_nothing_to_measure_is_refused(self, name: str) -> None:
        with pytest.raises(DataError):
            registry.METRICS.load(name)(*inputs_of(name, n=40, m=0))


@pytest.mark.parametrize("name", [m for m in METRICS if "real.features" in registry.METRICS.facts(m)["inputs"]])
class TestEveryMetricOfFeatures:
    def test_few_samples_of_many_features(self, name: str) -> None:
        wide = np.random.default_rng(9).normal(size=(2, 12, 100))
        assert np.isfinite(registry.METRICS.load(name)(wide[0], wide[1]))

    def test_too_few_and_unlike_features_are_refused(self, name: str) -> None:
        metric, good = registry.METRICS.load(name), normal(20, seed=10)
        for real, fake in [(good, good[:1]), (good[:1], good), (good, good[:, :4])]:
            with pytest.raises(DataError):
                metric(real, fake)
