"""Perceptual path length (Karras et al. 2019, StyleGAN, https://arxiv.org/abs/1812.04948): how far an image moves for a small
step of its latent. A smooth generator has short paths.

Steps are taken at the start of paths between two random latents ("end" in the paper's code): between styles (w) by straight
lines where the network has them, else between latents (z) along great circles. In units of the distance over step squared.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tlgan.errors import DataError
from tlgan.metrics.features import CHUNK, estimator
from tlgan.metrics.perceptual import Distance
from tlgan.metrics.pictures import Generated
from tlgan.random import latents
from tlgan.sampling import labels_of

STEP = 1e-4
OTHER_ENDS = 1 << 62  # added to the seed
LARGEST = 256  # px that images are brought down to, as the authors do


@estimator(estimator="path_length_end", step=STEP, discarded="below 1 % and above 99 %")
def ppl(lengths: np.ndarray) -> float:
    """Mean of path lengths [N] without the 1 % shortest and longest. Raises `DataError` for none, or NaN."""
    lengths = np.asarray(lengths, dtype=np.float64).reshape(-1)
    if len(lengths) == 0 or not np.isfinite(lengths).all():
        raise DataError("path lengths: expected finite numbers; are the generator's weights broken?")
    low, high = np.percentile(lengths, 1, method="lower"), np.percentile(lengths, 99, method="higher")
    return float(lengths[(low <= lengths) & (lengths <= high)].mean())


class Paths:
    """Both ends of paths [N, 2 * latent_dim] in the blocks of `Generated`; and the class of both, if there are any."""

    def __init__(self, images: Generated) -> None:
        self.images, self.count = images, images.count
        self.space = "w" if hasattr(images.g, "synthesise") else "z"

    def block(self, number: int) -> Tensor | None:
        start = self.images.latents(number)
        if start is None:
            return None
        end = latents(self.images.seed ^ OTHER_ENDS, number * CHUNK, len(start), self.images.g.latent_dim)
        labels = labels_of(self.images.g, self.images.seed, number * CHUNK, len(start))
        return torch.cat([start, end] if labels is None else [start, end, labels[:, None].to(start.dtype)], dim=1)

    def look(self, distance: Distance) -> Any:
        """A function of `block` to `{"lengths": [N]}`."""

        @torch.no_grad()
        def lengths(ends: Tensor) -> dict[str, Tensor]:
            near, far = self._steps(ends.to(next(self.images.g.parameters()).device))
            return {"lengths": distance(_picture(near), _picture(far)).double() / STEP**2}

        return lengths

    def _steps(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        g: Any = self.images.g
        start, end, labels = ends.tensor_split((g.latent_dim, 2 * g.latent_dim), dim=1)
        given = {"labels": labels[:, 0].long()} if g.classes else {}
        if self.space == "w":
            a, b = g.styles(start, **given), g.styles(end, **given)
            return g.synthesise(a), g.synthesise(torch.lerp(a, b, STEP))
        return g(start, **given), g(slerp(start, end, STEP), **given)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Points [N, D] at `share` of the arc from `a` to `b`, in float64 inside: the step is small."""
    x, y = a.double(), b.double()
    angle = torch.acos(F.cosine_similarity(x, y, dim=1).clamp(-1, 1))[:, None]
    ratio = [torch.sin(t * angle) / torch.sin(angle) for t in (1 - share, share)]
    return (ratio[0] * x + ratio[1] * y).to(a.dtype)


def _picture(x_nchw: Tensor) -> Tensor:
    """[-1, 1] to 0..255, not rounded; at most 256 px."""
    factor = math.ceil(x_nchw.shape[-1] / LARGEST)
    x = F.avg_pool2d(x_nchw, factor) if factor > 1 else x_nchw
    return (x.float() + 1) * 127.5
