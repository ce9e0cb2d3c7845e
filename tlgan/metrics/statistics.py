"""Mean and covariance of a set's features: small enough to be stored with what it describes, enough for a distance.

Two sets are compared as Gaussians. `frechet` is FID's distance. `divergence` is one-sided: how badly a source covers a
target. A source that has the target's images among many others is near by it, and far by the symmetric one.

Legend: D features; N images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tlgan.canonical import canonical_json
from tlgan.errors import DataError, IntegrityError
from tlgan.metrics.frechet import frechet_distance

Float64 = npt.NDArray[np.float64]
FORMAT = 1
FLOOR = (
    1e-2  # share of the target's mean variance that is added to every variance: few images don't fill all directions
)


@dataclass(frozen=True)
class FeatureStatistics:
    """`mean` [D] and `covariance` [D, D] (1 / (N - 1)) of `count` images; `about` says of what and how, JSON-able."""

    mean: Float64
    covariance: Float64
    count: int
    about: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """An npz without pickles; equal statistics give equal arrays, not always equal bytes."""
        buffer = io.BytesIO()
        head = canonical_json({"format": FORMAT, "count": self.count, "about": self.about})
        np.savez(buffer, mean=self.mean, covariance=self.covariance, head=np.frombuffer(head, np.uint8))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> FeatureStatistics:
        """Raises `IntegrityError` for anything but what `to_bytes` wrote."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                mean, covariance = arrays["mean"], arrays["covariance"]
                head = json.loads(arrays["head"].tobytes())
            count, about, known = int(head["count"]), dict(head["about"]), head["format"] == FORMAT
        except Exception as error:  # a broken zip raises whatever its bytes lead to
            raise IntegrityError(f"stored feature statistics can't be read: {error}") from None
        square = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
        doubles = mean.dtype == covariance.dtype == np.float64
        if not (known and square and doubles and np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise IntegrityError(f"stored feature statistics are not of format {FORMAT}")
        return cls(mean, covariance, count, about)


def gather(features: Iterable[npt.NDArray[Any]], about: dict[str, Any] | None = None) -> FeatureStatistics:
    """Statistics of a stream of feature batches [n, D]. Raises `DataError` for fewer than 2 images or NaN."""
    rows = [np.asarray(batch, np.float64) for batch in features if len(batch)]
    x = np.concatenate(rows) if rows else np.zeros((0, 1))
    if len(x) < 2:
        raise DataError(f"feature statistics: expected at least 2 images, received {len(x)}")
    if not np.isfinite(x).all():
        raise DataError("feature statistics: the features hold NaN or infinity", hint="look at the images")
    covariance = np.atleast_2d(np.cov(x, rowvar=False, ddof=1))
    return FeatureStatistics(x.mean(axis=0), covariance, len(x), about or {})


def frechet(source: FeatureStatistics, target: FeatureStatistics) -> float:
    """FID of the two; unit: squared features."""
    _check_pair(source, target)
    return frechet_distance(target.mean, target.covariance, source.mean, source.covariance)


def divergence(source: FeatureStatistics, target: FeatureStatistics) -> float:
    """KL(target || source) of the two Gaussians, in nats: the target's surprise at the source. 0 for equal ones.

    Both covariances get `FLOOR` of the target's mean variance on their diagonal.
    """
    _check_pair(source, target)
    size = len(target.mean)
    floor = np.eye(size) * max(FLOOR * float(np.trace(target.covariance)) / size, 1e-12)
    p, q = target.covariance + floor, source.covariance + floor
    shift = source.mean - target.mean
    quadratic = np.trace(np.linalg.solve(q, p)) + shift @ np.linalg.solve(q, shift)
    volumes = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
    return max(float(quadratic - len(shift) + volumes) / 2, 0.0)


DISTANCES = {"divergence": divergence, "frechet": frechet}
"""By name; `f(source, target)`, smaller is nearer."""


def _check_pair(source: FeatureStatistics, target: FeatureStatistics) -> None:
    if source.mean.shape != target.mean.shape:
        raise DataError(
            f"feature statistics differ in length: {len(source.mean)} and {len(target.mean)}",
            hint="compute both with the same extractor",
        )
