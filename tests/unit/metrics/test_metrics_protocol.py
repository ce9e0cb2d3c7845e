"""Numbers that were taken differently refuse to be compared, and say why."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tlgan.errors import DataError, SpecError
from tlgan.metrics.measure import MetricValue, compare, same_protocol

TAKEN = {
    "extractor": "embedded",
    "extractor_digest": "aa",
    "samples_fake": 1000,
    "reference": "bb",
    "seed": 0,
    "ema": True,
}


def value(name: str = "kid", number: float = 0.1, **changed: object) -> MetricValue:
    return MetricValue(name, number, {**TAKEN, **changed})


def test_compare_is_positive_when_the_first_is_better() -> None:
    assert compare(value(number=0.1), value(number=0.3)) == pytest.approx(0.2)
    assert compare(value("recall", 0.1), value("recall", 0.3)) == pytest.approx(-0.2)
    assert compare(value(), value()) == 0


def test_seed_and_the_name_of_the_weights_do_not_matter() -> None:
    assert same_protocol(value(), value(seed=7, extractor="classifier:features:latest"))


@pytest.mark.parametrize(
    "changed", [{"extractor_digest": "cc"}, {"samples_fake": 999}, {"reference": "dd"}, {"ema": False}, {"new": 1}]
)
def test_every_other_field_does(changed: dict[str, object]) -> None:
    assert not same_protocol(value(), value(**changed))
    with pytest.raises(SpecError, match=next(iter(changed))):
        compare(value(), value(**changed))


def test_all_differences_are_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        compare(value(), value(samples_fake=50_000, ema=False))
    assert [p.path for p in caught.value.problems] == ["samples_fake", "ema"]
    assert "samples_fake: kid was taken differently: 1000 and 50000" in str(caught.value)
    assert caught.value.hint


def test_different_metrics_are_not_comparable() -> None:
    with pytest.raises(SpecError, match="kid and fid are different metrics"):
        compare(value("kid"), value("fid"))


def test_a_field_only_one_has_is_said_to_be_missing() -> None:
    with pytest.raises(SpecError, match=r"resize: .* bilinear and not recorded"):
        compare(value(resize="bilinear"), value())


def test_json_round_trip() -> None:
    stored = json.loads(json.dumps({"nimg": 64_000, **value().to_json()}))
    assert MetricValue.from_json(stored) == value()
    with pytest.raises(DataError, match="lacks protocol"):
        MetricValue.from_json({"name": "kid", "value": 1})


def test_a_value_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        value().value = 0.0  # type: ignore[misc]
