"""Copies of training images and of one another: planted ones are counted, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from tlgan.errors import DataError
from tlgan.metrics.copies import copy_rate, duplicates


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_planted_copies_are_counted_whatever_the_scale(normal, scale: float) -> None:
    training, fresh = normal(200, 32, seed=0, scale=scale), normal(75, 32, seed=1, scale=scale)
    copies = training[:25] + normal(25, 32, seed=2, scale=0.05 * scale)
    assert copy_rate(training, fresh) == 0
    assert copy_rate(training, np.concatenate([fresh, copies])) == 0.25
    assert copy_rate(training, training) == 1


def test_the_threshold_is_half_the_mean_distance_of_the_nearest() -> None:
    training = np.array([[0.0], [10.0], [20.0]])  # fewer than 50: all three are the nearest
    # from x in 0..5 the distances are x, 10 - x, 20 - x; half their mean is (30 - x) / 6; x is less below 30 / 7
    assert copy_rate(training, np.array([[30 / 7 - 0.01]])) == 1
    assert copy_rate(training, np.array([[30 / 7 + 0.01]])) == 0
    assert copy_rate(training, np.array([[1.0]]), alpha=0.1) == 0


def test_mirrored_copies_count_where_training_mirrors(normal) -> None:
    training, mirrored = normal(60, 16, seed=3), normal(60, 16, seed=4)
    fake = np.concatenate([mirrored[:5], normal(15, 16, seed=5)])
    assert copy_rate(training, fake) == 0
    assert copy_rate(training, fake, mirrored) == 0.25
    assert copy_rate(training, fake, None) == 0


def test_a_collapsed_generator_is_all_duplicates(normal) -> None:
    real, varied = normal(300, 16, seed=6), normal(100, 16, seed=7)
    assert duplicates(real, varied) == 0
    one_image = np.tile(normal(1, 16, seed=8), (100, 1)) + normal(100, 16, seed=9, scale=1e-3)
    assert duplicates(real, one_image) == 1
    two_pairs = np.concatenate([varied, varied[:2] + 1e-6])
    assert duplicates(real, two_pairs) == pytest.approx(4 / 102)


def test_next_to_is_a_tenth_of_the_typical_distance() -> None:
    real = np.array([[-1.0], [1.0]])  # variance 2, so the root mean square distance of pairs is 2
    assert duplicates(real, np.array([[0.0], [0.199]])) == 1
    assert duplicates(real, np.array([[0.0], [0.201]])) == 0


def test_mistakes_are_said_clearly(normal) -> None:
    with pytest.raises(DataError, match="at least 3 training images; received 2"):
        copy_rate(normal(2, 4, seed=0), normal(9, 4, seed=1))
