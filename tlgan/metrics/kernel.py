"""Kernel distance between two sets of features (KID). Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401

The squared maximum mean discrepancy under k(x, y) = (x·y / D + 1)^3. The default uses every pair of samples once: the
unbiased estimate of least variance. The paper's and torch-fidelity's average over random subsets estimates the same
quantity, with more noise; `subsets` reproduces it draw by draw.
"""

from __future__ import annotations

import numpy as np

from tlgan.errors import DataError
from tlgan.metrics.features import check_features, estimator

_ELEMENTS = 1 << 21  # kernel values held at once: 16 MiB of float64


@estimator(estimator="mmd2_unbiased_all_pairs", kernel="(x.y/d+1)^3", dtype="float64")
def kid(
    real: np.ndarray, fake: np.ndarray, *, subsets: int | None = None, subset_size: int = 1000, seed: int = 2020
) -> float:
    """Unbiased squared MMD of real [N, D] and fake [M, D] features: around 0 (also below) for equal distributions.

    With `subsets`: the mean over so many pairs of random subsets, exactly torch-fidelity's `kid_features_to_metric`
    with the fake features as its first input and `seed` as its `rng_seed`.
    Raises `DataError` for fewer than 2 samples (or than `subset_size`), NaN, or unlike D.
    """
    if subsets is None:
        return mmd2_unbiased(*check_features(real, fake, at_least=2))
    if subsets < 1 or subset_size < 2:
        raise DataError(
            f"kid: expected subsets >= 1 and subset_size >= 2; received subsets={subsets}, subset_size={subset_size}"
        )
    real, fake = check_features(real, fake, at_least=subset_size)
    draw = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        some_fake = fake[draw.choice(len(fake), subset_size, replace=False)]
        some_real = real[draw.choice(len(real), subset_size, replace=False)]
        values[i] = mmd2_unbiased(some_real, some_fake)
    return float(values.mean())


def mmd2_unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over distinct pairs; x [N, D], y [M, D] float64."""
    return _mean_within(x) + _mean_within(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def _mean_within(x: np.ndarray) -> float:
    """Mean of k over ordered pairs of different samples."""
    n, d = x.shape
    total = _sum_by_moments(x) if n > d * d else _kernel_sum(x, x)
    diagonal = ((x * x).sum(axis=1) / d + 1) ** 3
    return float((total - diagonal.sum()) / (n * (n - 1)))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of k over all pairs, a slab of rows at a time."""
    rows = max(1, _ELEMENTS // len(y))
    total = 0.0
    for start in range(0, len(x), rows):
        k = x[start : start + rows] @ y.T
        k /= x.shape[1]
        k += 1
        total += float(np.einsum("ij,ij,ij->", k, k, k))  # the sum of cubes without two more copies
    return total


def _sum_by_moments(x: np.ndarray) -> float:
    """The same as `_kernel_sum(x, x)` in N D^3 steps, not N^2 D: sums of (a·b)^p over pairs are squared norms of moments.

    With a = x / sqrt(D): sum (a·b + 1)^3 = N^2 + 3 |sum a|^2 + 3 |sum aa|^2 + |sum aaa|^2.
    """
    n, d = x.shape
    a = x / np.sqrt(d)
    first, second, third = a.sum(axis=0), a.T @ a, np.zeros((d, d * d))
    rows = max(1, _ELEMENTS // (d * d))
    for start in range(0, n, rows):
        slab = a[start : start + rows]
        third += slab.T @ (slab[:, :, None] * slab[:, None, :]).reshape(len(slab), d * d)
    return float(n * n + 3 * np.square(first).sum() + 3 * np.square(second).sum() + np.square(third).sum())
