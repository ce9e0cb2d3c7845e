"""A film that ends where it began: a closed, smooth curve through a few images of a generator."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tlgan.errors import SpecError
from tlgan.latent.space import Space
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.sampling import BATCH, to_uint8


def closed_curve(knots: Tensor, steps: int) -> Tensor:
    """`[K, D]` to `[K * steps, D]`: the periodic Catmull-Rom spline through the knots; row `k * steps` is knot k.

    Position and velocity are continuous, over the seam too (Catmull & Rom 1974).
    """
    before, after, next_but_one = (knots.roll(-shift, 0) for shift in (-1, 1, 2))
    t = torch.arange(steps, dtype=knots.dtype, device=knots.device)[:, None] / steps
    weights = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    )
    points = zip((before, knots, after, next_but_one), weights, strict=True)
    return sum(rows[:, None] * weight for rows, weight in points).flatten(0, 1)  # type: ignore[union-attr]


@torch.no_grad()
def loop(g: Network, frames: int, ends: int = 4, seed: int = 0, truncation: float = 1.0) -> Iterator[Tensor]:
    """`frames` images, uint8 `[n, C, H, W]` batches, along a closed curve through `ends` images of `seed`.

    In styles where the network has them. Latents keep the length that random ones have: normal latents lie near a sphere
    (White 2016). `frames` must be a multiple of `ends`. Raises `SpecError`.
    """
    if ends < 3 or frames < ends or frames % ends:
        raise SpecError(
            f"a loop needs at least 3 images to go through, and a multiple of them as frames; received {ends} and {frames}"
        )
    space = Space(g)
    z = latents(seed, 0, ends, g.latent_dim)
    if space.name == "w":
        path = closed_curve(space.codes(z, truncation), frames // ends)
    else:
        lengths = closed_curve(z.norm(dim=1, keepdim=True), frames // ends)
        curve = closed_curve(z, frames // ends)
        path = space.codes(curve * lengths / curve.norm(dim=1, keepdim=True), truncation)
    for part in path.split(BATCH):
        yield to_uint8(space.images(part)).cpu()
