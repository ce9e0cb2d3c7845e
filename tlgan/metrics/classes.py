"""What a classifier makes of the images: Inception Score, and whether generated and real images show the same things.

Both take class scores (logits) [N, K] and turn them into probabilities in float64.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tlgan.errors import DataError
from tlgan.metrics.features import check_features, estimator

SPLITS = 10


@estimator(estimator="inception_score", splits=SPLITS, dtype="float64")
def inception_score(fake: np.ndarray, splits: int = SPLITS) -> float:
    """exp E KL(p(y|x) || p(y)) (Salimans et al. 2016, https://arxiv.org/abs/1606.03498), the mean over `splits` parts.

    From 1 (all images alike to the classifier) to K (each sure, all classes as often). Parts are consecutive images, as
    in torch-fidelity without shuffling. It looks at no real image: useful beside other metrics only.
    Raises `DataError` for fewer images than `splits`, or scores that are not finite.
    """
    scores, _ = check_features(fake, fake, at_least=splits)
    log_p = _log_softmax(scores)
    bounds = [i * len(log_p) // splits for i in range(splits + 1)]
    return float(np.mean([_score(log_p[a:b]) for a, b in pairwise(bounds)]))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    log_mean = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_mean)).sum(axis=1).mean()))


@estimator(estimator="class_overlap", dtype="float64")
def semantic_agreement(real: np.ndarray, fake: np.ndarray) -> float:
    """Share of class probability that real [N, K] and generated [M, K] images have in common, in [0, 1].

    sum_k min(p_real(k), p_fake(k)) = 1 - the total variation between the mean class probabilities: 1 when the classifier
    sees every class as often in both, 0 when it sees no class in common. Raises `DataError` as the other metrics do.
    """
    real, fake = check_features(real, fake, at_least=2)
    if real.shape[1] < 2:
        raise DataError(f"class scores: expected at least 2 classes; received {real.shape[1]}")
    means = [np.exp(_log_softmax(scores)).mean(axis=0) for scores in (real, fake)]
    return float(np.minimum(*means).sum())


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
