"""Precision and recall: cases drawn by hand, torch-fidelity's PRC, slabs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from tlgan.errors import DataError
from tlgan.metrics import neighbours
from tlgan.metrics.neighbours import precision, recall


def line(*points: float) -> np.ndarray:
    return np.array(points, dtype=np.float64)[:, None]


def test_on_a_line() -> None:
    real, fake = line(0, 1, 2, 3), line(-1, 1.5, 6, 9)  # radii at k=1: real 1, 1, 1, 1; fake 2.5, 2.5, 3, 3
    assert precision(real, fake, k=1) == 2 / 4  # -1 is on the rim of 0, 1.5 is inside; 6 and 9 are not
    assert recall(real, fake, k=1) == 4 / 4
    assert recall(fake, real, k=1) == 2 / 4  # the two are each other with the sets exchanged


def test_k_is_the_kth_other_sample() -> None:
    real, fake = line(0, 1, 2, 3, 4, 5, 100, 101, 102, 103), line(-3, -3.1, -5, 108.1, 50)
    assert precision(real, fake) == 1 / 5  # 0 and 103 reach 3 far: only -3 is on a rim
    assert precision(real, fake, k=4) == 4 / 5  # 0 reaches 4 far, and 103's fourth neighbour is 5, far away; not -5


def test_equal_sets_and_sets_far_apart(normal) -> None:
    x = normal(50, 8, seed=0)
    assert precision(x, x) == recall(x, x) == 1.0
    assert precision(x, x + 100) == recall(x, x + 100) == 0.0


def test_precision_sees_quality_and_recall_variety(normal) -> None:
    two_modes = np.concatenate([normal(200, 4, seed=1), normal(200, 4, seed=2, shift=20)])
    one_mode = normal(400, 4, seed=3)
    assert precision(two_modes, one_mode) > 0.85
    assert recall(two_modes, one_mode) == pytest.approx(0.5, abs=0.05)
    assert precision(one_mode, two_modes) == pytest.approx(0.5, abs=0.05)


def test_duplicates_have_radius_zero_and_still_hold_themselves(normal) -> None:
    five_of_each = np.repeat(1e3 * normal(40, 33, seed=9), 5, axis=0)  # rounding alone would set them apart
    x = torch.from_numpy(five_of_each)
    (squared,) = neighbours.distances(x, x)
    assert (squared == 0).sum() == 200 * 5
    some = five_of_each[3::7]
    assert precision(five_of_each, some) == 1.0
    assert precision(five_of_each, some + 1e-2) == 0.0


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 8), (150, 250, 64)])
def test_agrees_with_torch_fidelity(normal, n: int, m: int, d: int) -> None:
    real, fake = normal(n, d, seed=4), normal(m, d, seed=5, shift=0.2, scale=1.05)
    expected = prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), save_cpu_ram=False, verbose=False)
    assert 0.1 < expected["precision"] < 0.95
    assert 0.1 < expected["recall"] < 0.95
    assert precision(real, fake) == pytest.approx(expected["precision"], abs=1e-6)
    assert recall(real, fake) == pytest.approx(expected["recall"], abs=1e-6)


def test_slabs_give_the_same_number(normal, monkeypatch) -> None:
    real, fake = normal(120, 4, seed=6), normal(100, 4, seed=7, shift=0.5)
    whole = precision(real, fake), recall(real, fake)
    monkeypatch.setattr(neighbours, "_ELEMENTS", 700)
    assert (precision(real, fake), recall(real, fake)) == whole
    assert 0 < whole[0] < 1


def test_mistakes_are_said_clearly(normal) -> None:
    x = normal(10, 4, seed=8)
    with pytest.raises(DataError, match="fake features: this metric needs at least 4 samples; received 3"):
        precision(x, x[:3])
    with pytest.raises(DataError, match="expected k >= 1; received 0"):
        recall(x, x, k=0)
