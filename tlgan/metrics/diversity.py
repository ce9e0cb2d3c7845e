"""How unlike each other the images are that one training image gave rise to: the protocol of Ojha et al. 2021 for few shots,
https://arxiv.org/abs/2104.06820. A generator that memorised its training images gives 0, however good its FID.

1 000 generated images are each assigned to the nearest training image; the mean distance between two of one cluster, averaged
over the clusters. With LPIPS it is the paper's intra-cluster LPIPS; with an extractor's features the same on those.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from tlgan.errors import DataError
from tlgan.metrics.features import estimator
from tlgan.metrics.perceptual import Distance

IMAGES, CENTRES, LARGEST = 1000, 100, 50
PAIRS = 128  # compared at once


@estimator(estimator="intra_cluster", images=IMAGES, centres_at_most=CENTRES, cluster_at_most=LARGEST)
def diversity(pairs: np.ndarray) -> float:
    """Mean over clusters of the mean distance within; `pairs` [P, 2] are (cluster, distance). Higher: more varied.

    A cluster of fewer than two images counts for nothing, as in the paper's code. Raises `DataError` when all are, or NaN.
    """
    pairs = np.asarray(pairs, dtype=np.float64)
    if len(pairs) == 0 or not np.isfinite(pairs).all():
        raise DataError("diversity: expected finite distances within clusters, received none", hint="use more samples")
    _, cluster = np.unique(pairs[:, 0], return_inverse=True)
    sums, counts = np.bincount(cluster, weights=pairs[:, 1]), np.bincount(cluster)
    return float((sums / counts).mean())


def centre_rows(count: int) -> np.ndarray:
    """Which of `count` training images are the centres: all, or 100 of them, always the same."""
    if count <= CENTRES:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:CENTRES])


def cluster_pairs(distance: Distance, fake: Tensor, centres: Tensor) -> np.ndarray:
    """[P, 2]: (cluster, distance) of two generated images of one cluster. Images are uint8 [M or K, C, H, W].

    Of a large cluster the first 50 images are compared.
    """
    grid = torch.cartesian_prod(torch.arange(len(fake)), torch.arange(len(centres))).view(-1, 2)
    nearest = _compare(distance, fake, centres, grid).view(len(fake), len(centres)).argmin(dim=1)
    rows = []
    for cluster in range(len(centres)):
        members = torch.nonzero(nearest == cluster)[:LARGEST, 0].tolist()
        if len(members) > 1:
            within = _compare(distance, fake, fake, torch.tensor(list(combinations(members, 2))))
            rows.append(torch.stack([torch.full_like(within, cluster), within], dim=1))
    return torch.cat(rows).numpy() if rows else np.zeros((0, 2))


def _compare(distance: Distance, x: Tensor, y: Tensor, pairs: Tensor) -> Tensor:
    """Distances [P] of x[i] and y[j] for `pairs` [P, 2] of (i, j)."""
    return torch.cat([distance(x[i].float(), y[j].float()) for i, j in (part.unbind(1) for part in pairs.split(PAIRS))])
