"""What the model's own discriminator says on images it has not seen. All inputs are its logits [N]; higher: more real."""

from __future__ import annotations

import numpy as np

from tlgan.errors import DataError
from tlgan.metrics.features import estimator


@estimator(estimator="auc_held_out_over_fake", dtype="float64")
def adversarial(held_out: np.ndarray, fake: np.ndarray) -> float:
    """Chance that D ranks a held-out real image above a generated one (the area under its ROC curve), in [0, 1].

    0.5: D can't tell them apart, the best a generator can do to a D that generalises; 1: every image is found out. Below
    0.5: D finds generated images more real than real ones it never saw, as one does that only knows its training images.
    Ties count half. Does not depend on the loss or the scale of logits. Raises `DataError` for none, or NaN.
    """
    held_out, fake = _logits(held_out, "held-out"), _logits(fake, "generated")
    order = np.sort(fake)
    below, upto = np.searchsorted(order, held_out, "left"), np.searchsorted(order, held_out, "right")
    return float((below + upto).mean() / 2 / len(fake))


@estimator(estimator="r_v", dtype="float64")
def d_overfit(training: np.ndarray, held_out: np.ndarray, fake: np.ndarray) -> float:
    """r_v = (E D(training) - E D(held-out)) / (E D(training) - E D(fake)) (Karras et al. 2020, ADA, eq. 1).

    0: D treats unseen real images as those it trains on; 1: as generated ones, it has learned its training images by
    heart. Around 0 when D separates nothing; NaN when the denominator is 0. Raises `DataError` for none, or NaN.
    """
    training, held_out, fake = (
        _logits(x, what) for x, what in ((training, "training"), (held_out, "held-out"), (fake, "generated"))
    )
    gap = training.mean() - fake.mean()
    return float((training.mean() - held_out.mean()) / gap) if gap else float("nan")


def _logits(logits: np.ndarray, what: str) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64).reshape(-1)
    if len(logits) == 0 or not np.isfinite(logits).all():
        raise DataError(f"D's logits on {what} images: expected finite numbers, received {logits[:4]}")
    return logits
