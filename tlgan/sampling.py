"""Images from a generator: reproducible by seed, whatever the batch size and however many are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from tlgan.errors import SpecError
from tlgan.models.blocks import Network
from tlgan.random import LATENT_BLOCK, latents

BATCH = 4 * LATENT_BLOCK


def to_uint8(x_nchw: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, rounded to the nearest level."""
    return x_nchw.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


@torch.no_grad()
def draw(g: Network, z: Tensor, truncation: float = 1.0) -> Tensor:
    """uint8 images `[N, C, H, W]` on the CPU for latents `[N, latent_dim]`, in batches.

    `truncation` in [0, 1] draws latents, or styles where the network has them, towards their mean: less variety, more
    typical images. Raises `SpecError`.
    """
    if not 0 <= truncation <= 1:
        raise SpecError(f"truncation: expected a number from 0 to 1, received {truncation}")
    device = next(g.parameters()).device
    parts = [to_uint8(g.truncated(part.to(device), truncation)).cpu() for part in torch.split(z, BATCH)]
    return torch.cat(parts).contiguous()


def generate(g: Network, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
    """`n` images as uint8 `[n, C, H, W]`. Image i depends on `(seed, i)` and the generator only.

    `g` is what `tlgan.load_generator` returned. Raises `SpecError` for a negative `n` or a truncation outside [0, 1].
    """
    if n < 1:
        raise SpecError(f"n: expected at least 1 image, received {n}")
    return torch.cat(list(stream(g, n, seed, truncation)))


def stream(g: Network, n: int, seed: int = 0, truncation: float = 1.0) -> Iterator[Tensor]:
    """The images of `generate` in batches, so that a million need no memory."""
    dim = g.latent_dim
    for start in range(0, n, BATCH):
        z = latents(seed, start, min(BATCH, n - start), dim)
        yield draw(g, z, truncation)


def interpolate(g: Network, steps: int, seed: int = 0, truncation: float = 1.0, ends: int = 2) -> Tensor:
    """A walk through `ends` latents with `steps` images from each to the next: uint8 `[(ends-1)*steps + 1, C, H, W]`.

    Along great circles, for latents of a normal distribution lie near a sphere (White 2016, "Sampling generative networks").
    """
    if steps < 1 or ends < 2:
        raise SpecError(f"interpolation: expected at least 1 step and 2 ends, received {steps} and {ends}")
    z = latents(seed, 0, ends, g.latent_dim)
    share = torch.linspace(0, 1, steps + 1)[:-1, None]
    walk = [_slerp(a, b, share) for a, b in pairwise(z)]
    return draw(g, torch.cat([*walk, z[-1:]]), truncation)


def _slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Points `[S, D]` on the arc from `a` to `b` at `share` `[S, 1]` in [0, 1)."""
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin().abs() < 1e-6:
        return torch.lerp(a, b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
