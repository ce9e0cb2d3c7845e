"""Images that are there already: near-duplicates of training images, and of one another.

"Near" is relative to how far images lie apart anyway, so neither number has a unit or depends on the features' scale.
"""

from __future__ import annotations

import numpy as np
import torch

from tlgan.errors import DataError
from tlgan.metrics.features import check_features, estimator
from tlgan.metrics.neighbours import distances

NEIGHBOURS, ALPHA = 50, 0.5
NEAR = 0.1


@estimator(estimator="carlini_ratio", neighbours=NEIGHBOURS, alpha=ALPHA, distance="euclidean", dtype="float64")
def copy_rate(
    training: np.ndarray, fake: np.ndarray, mirrored: np.ndarray | None = None, alpha: float = ALPHA
) -> float:
    """Share of generated images [M, D] that are near-duplicates of a training image [N, D], in [0, 1].

    One is, if its nearest training image is closer than `alpha` times the mean distance to its 50 nearest (or all, if
    there are fewer): Carlini et al. 2023, "Extracting training data from diffusion models", sec. 4, with one distance of
    features. `mirrored` [N, D]: the training images left-right, where training shows them so; the nearer of the two counts.
    Raises `DataError` for fewer than 3 training images, NaN, or unlike D.
    """
    sets = [check_features(part, fake, at_least=1) for part in (training, mirrored) if part is not None]
    if len(sets[0][0]) < 3:
        raise DataError(f"copy rate: expected at least 3 training images; received {len(sets[0][0])}")
    middle = sets[0][0].mean(axis=0)
    probes = torch.from_numpy(sets[0][1] - middle)
    slabs = [distances(probes, torch.from_numpy(part - middle)) for part, _ in sets]
    copies = 0
    for parts in zip(*slabs, strict=True):
        nearest = torch.stack(parts).amin(0).sqrt()
        nearest = nearest.topk(min(NEIGHBOURS, nearest.shape[1]), dim=1, largest=False).values
        copies += int((nearest[:, 0] < alpha * nearest.mean(dim=1)).sum())
    return copies / len(probes)


@estimator(estimator="near_another_fake", near=NEAR, distance="euclidean", dtype="float64")
def duplicates(real: np.ndarray, fake: np.ndarray, near: float = NEAR) -> float:
    """Share of generated images [M, D] that have another generated one next to them, in [0, 1]: 1 for a collapsed G.

    Next to: closer than `near` times the root mean square distance between two reference images [N, D].
    Raises `DataError` for fewer than 2 samples, NaN, or unlike D.
    """
    real, fake = check_features(real, fake, at_least=2)
    scale = 2 * real.var(axis=0, ddof=1).sum()  # E |x - x'|^2 over pairs
    middle = real.mean(axis=0)
    x = torch.from_numpy(fake - middle)
    second = torch.cat([slab.topk(2, dim=1, largest=False).values[:, 1] for slab in distances(x, x)])
    return float((second <= near**2 * scale).double().mean())
