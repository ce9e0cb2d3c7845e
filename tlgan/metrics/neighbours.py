"""Precision, recall, density and coverage over k-nearest-neighbour balls.

A set's manifold is the union of balls around its samples, each reaching to the sample's k-th nearest neighbour in the
same set. Precision: share of fake samples inside the real manifold (quality). Recall: the reverse (variety).
Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991

An outlier's ball is large, and whatever lies in it counts. Density counts how many real balls a fake sample is in, and
coverage the real balls that hold a fake sample: Naeem et al. 2020, https://arxiv.org/abs/2002.09797. They leave a
ball's rim out; here it belongs to the ball, as in precision, so that exact copies count. All depend on the sample counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tlgan.errors import DataError
from tlgan.metrics.features import check_features, estimator

K = 3
K_NAEEM = 5
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


@estimator(estimator="knn_density", k=K_NAEEM, distance="euclidean")
def density(real: np.ndarray, fake: np.ndarray, k: int = K_NAEEM) -> float:
    """Mean number of real [N, D] balls around a fake [M, D] sample, over k: 1 is expected for equal distributions, more
    when fake samples keep to where real ones are densest. Errors as `precision`."""
    manifold, probes = _centred(real, fake, k)
    radii = _radii(manifold, k)
    inside = sum(int((d <= radii).sum()) for d in distances(probes, manifold))
    return inside / (k * len(probes))


@estimator(estimator="knn_coverage", k=K_NAEEM, distance="euclidean")
def coverage(real: np.ndarray, fake: np.ndarray, k: int = K_NAEEM) -> float:
    """Share of real [N, D] balls that hold a fake [M, D] sample, in [0, 1]. Errors as `precision`.

    Expected for equal distributions and counts: 1 - ((N - 1) ... (N - k)) / ((2N - 1) ... (2N - k)), about 1 - 2^-k.
    """
    manifold, probes = _centred(real, fake, k)
    radii = _radii(manifold, k)
    held = torch.zeros(len(manifold), dtype=torch.bool)
    for d in distances(probes, manifold):
        held |= (d <= radii).any(dim=0)
    return float(held.double().mean())


def _centred(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    """Both sets around the real mean: distances stay, and cancellation in them gets small."""
    if k < 1:
        raise DataError(f"k nearest neighbours: expected k >= 1; received {k}")
    real, fake = check_features(real, fake, at_least=k + 1)
    middle = real.mean(axis=0)
    return torch.from_numpy(real - middle), torch.from_numpy(fake - middle)


def _covered(probes: Tensor, manifold: Tensor, k: int) -> float:
    radii = _radii(manifold, k)
    inside = sum(int((d <= radii).any(dim=1).sum()) for d in distances(probes, manifold))
    return inside / len(probes)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance [N] from each sample to its k-th nearest other sample (itself is its 0-th)."""
    return torch.cat([d.topk(k + 1, dim=1, largest=False).values[:, -1] for d in distances(x, x)])


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared Euclidean distances, slabs [rows, M] of x [N, D] against y [M, D]."""
    rows = max(1, _ELEMENTS // len(y))
    norms = y.square().sum(dim=1)
    for slab in x.split(rows):
        scale = slab.square().sum(dim=1, keepdim=True) + norms
        d = torch.addmm(scale, slab, y.T, alpha=-2)
        yield d.masked_fill_(d < 1e-12 * scale, 0.0)  # duplicates are at 0, not at rounding noise
