"""Precision and recall over k-nearest-neighbour balls. Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991

A set's manifold is the union of balls around its samples, each reaching to the sample's k-th nearest neighbour in the
same set. Precision: share of fake samples inside the real manifold (quality). Recall: the reverse (variety). Both
depend on the sample counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tlgan.errors import DataError
from tlgan.metrics.features import check_features, estimator

K = 3
_ELEMENTS = 1 << 22  # distances held at once: 32 MiB of float64


@estimator(estimator="knn_manifold", k=K, distance="euclidean")
def precision(real: np.ndarray, fake: np.ndarray, k: int = K) -> float:
    """Share of fake [M, D] samples that lie in the manifold of real [N, D], in [0, 1].

    Raises `DataError` for k < 1, fewer than k + 1 samples, NaN, or unlike D.
    """
    manifold, probes = _centred(real, fake, k)
    return _covered(probes, manifold, k)


@estimator(estimator="knn_manifold", k=K, distance="euclidean")
def recall(real: np.ndarray, fake: np.ndarray, k: int = K) -> float:
    """Share of real [N, D] samples that lie in the manifold of fake [M, D], in [0, 1]. Errors as `precision`."""
    probes, manifold = _centred(real, fake, k)
    return _covered(probes, manifold, k)


def _centred(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    """Both sets around the real mean: distances stay, and cancellation in them gets small."""
    if k < 1:
        raise DataError(f"k nearest neighbours: expected k >= 1; received {k}")
    real, fake = check_features(real, fake, at_least=k + 1)
    middle = real.mean(axis=0)
    return torch.from_numpy(real - middle), torch.from_numpy(fake - middle)


def _covered(probes: Tensor, manifold: Tensor, k: int) -> float:
    radii = _radii(manifold, k)
    inside = sum(int((d <= radii).any(dim=1).sum()) for d in _distances(probes, manifold))
    return inside / len(probes)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance [N] from each sample to its k-th nearest other sample (itself is its 0-th)."""
    return torch.cat([d.topk(k + 1, dim=1, largest=False).values[:, -1] for d in _distances(x, x)])


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared Euclidean distances, slabs [rows, M] of x [N, D] against y [M, D]."""
    rows = max(1, _ELEMENTS // len(y))
    norms = y.square().sum(dim=1)
    for slab in x.split(rows):
        scale = slab.square().sum(dim=1, keepdim=True) + norms
        d = torch.addmm(scale, slab, y.T, alpha=-2)
        yield d.masked_fill_(d < 1e-12 * scale, 0.0)  # duplicates are at 0, not at rounding noise
