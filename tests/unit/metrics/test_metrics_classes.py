"""Inception Score and class overlap: closed forms, agreement with torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from tlgan.errors import DataError
from tlgan.metrics.classes import inception_score, semantic_agreement

SURE = 60.0  # a logit so large that its class has all the probability


def sure_of(classes: list[int], count: int) -> np.ndarray:
    return SURE * np.eye(count)[classes]


def test_k_classes_as_often_and_all_sure_score_k() -> None:
    scores = sure_of([0, 1, 2, 3] * 50, 4)
    assert inception_score(scores, splits=10) == pytest.approx(4, rel=1e-9)
    assert inception_score(sure_of([0, 1] * 100, 4)) == pytest.approx(2, rel=1e-9)


def test_images_that_all_look_alike_score_1(normal) -> None:
    assert inception_score(np.tile(normal(1, 7, seed=0), (40, 1))) == pytest.approx(1, rel=1e-12)
    assert inception_score(np.zeros((40, 7))) == pytest.approx(1, rel=1e-12)


def test_two_unsure_classes() -> None:
    p, q = 0.9, 0.1  # half of the images say (p, q), half (q, p): KL to (1/2, 1/2) is log 2 - H(p)
    scores = np.log([[p, q], [q, p]] * 20)
    assert inception_score(scores, splits=1) == pytest.approx(2 * p**p * q**q, rel=1e-12)


@pytest.mark.parametrize(("n", "splits"), [(200, 10), (203, 10), (64, 1)])
def test_agrees_with_torch_fidelity(normal, n: int, splits: int) -> None:
    scores = normal(n, 20, seed=1, scale=3)
    expected = isc_features_to_metric(torch.from_numpy(scores), splits=splits, shuffle=False)
    assert inception_score(scores, splits) == pytest.approx(expected["inception_score_mean"], rel=1e-9)


def test_overlap_is_one_minus_total_variation() -> None:
    real, fake = sure_of([0, 0, 0, 1], 3), sure_of([0, 1, 2, 2], 3)  # (3/4, 1/4, 0) and (1/4, 1/4, 1/2)
    assert semantic_agreement(real, fake) == pytest.approx(0.5, rel=1e-9)
    assert semantic_agreement(real, real[::-1]) == pytest.approx(1)
    assert semantic_agreement(real, sure_of([2, 2], 3)) == pytest.approx(0, abs=1e-9)


def test_mistakes_are_said_clearly(normal) -> None:
    with pytest.raises(DataError, match="at least 10 samples; received 9"):
        inception_score(normal(9, 3, seed=0))
    with pytest.raises(DataError, match="expected at least 2 classes; received 1"):
        semantic_agreement(normal(9, 1, seed=0), normal(9, 1, seed=0))
