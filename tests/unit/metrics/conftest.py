"""Fixtures of the metrics' tests."""

from __future__ import annotations

import numpy as np
import pytest
from stand_ins import Pixels, random_images

from tlgan.data import Dataset


@pytest.fixture
def pixels() -> Pixels:
    return Pixels()


@pytest.fixture
def reference() -> Dataset:
    """600 random 4x4 images: more than two chunks."""
    return Dataset.from_arrays(random_images(600, seed=0).numpy())


@pytest.fixture
def normal():
    """normal(n, d, seed, shift, scale): features [n, d]."""

    def draw(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
        return np.random.default_rng(seed).normal(shift, scale, (n, d))

    return draw
