"""Fréchet distance between two sets of features (FID). Heusel et al. 2017, https://arxiv.org/abs/1706.08500

The covariances divide by N - 1, as in torch-fidelity. tr sqrt(C1 C2) is taken as tr sqrt(S C2 S) with S = sqrt(C1), a
symmetric matrix whose eigenvalues are real and not negative: no complex square root, and no trouble when there are
fewer samples than features. The estimate is biased upwards for few samples: compare only equal counts.
"""

from __future__ import annotations

import numpy as np

from tlgan.metrics.features import check_features, estimator


@estimator(estimator="frechet", covariance="unbiased", dtype="float64")
def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of real [N, D] and fake [M, D] features; 0 for equal sets, unit: squared features.

    Raises `DataError` for fewer than 2 samples, NaN, or unlike D.
    """
    real, fake = check_features(real, fake, at_least=2)
    return frechet_distance(real.mean(axis=0), _covariance(real), fake.mean(axis=0), _covariance(fake))


def frechet_distance(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)) of two Gaussians with means [D] and covariances [D, D]."""
    eigenvalues, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(np.clip(eigenvalues, 0, None))) @ vectors.T
    product = root @ cov_2 @ root
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0, None)).sum()
    distance = np.square(mean_1 - mean_2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * overlap
    return max(float(distance), 0.0)  # rounding may leave -1e-13 for equal sets


def _covariance(features: np.ndarray) -> np.ndarray:
    """[D, D] with 1 / (N - 1)."""
    return np.atleast_2d(np.cov(features, rowvar=False, ddof=1))
