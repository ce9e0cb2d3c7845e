"""Projection: the code whose image is nearest to a given one (as in Karras et al. 2020, StyleGAN2, appendix D).

Departures: without VGG's weights, which would have to be downloaded, the distance is the mean square of pixels over a pyramid
of halved images; noise pictures stay as they are. In w where the network has styles; elsewhere in z, where codes keep the
length of random ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tlgan.errors import SpecError
from tlgan.latent.space import Space
from tlgan.learners.optimisers import Adam
from tlgan.metrics.perceptual import Lpips
from tlgan.models.blocks import Network
from tlgan.random import generator, latents
from tlgan.sampling import to_uint8

CANDIDATES = 256  # random codes among which the search begins with the nearest
RATE, WARM_UP, COOL_DOWN = 0.1, 0.05, 0.25
NOISE, NOISE_SHARE = 0.05, 0.75  # in spreads of codes; falls to nothing in this share of the steps
SMALLEST = 4  # px: the last level of the pyramid
LARGEST = 256  # px: larger images are halved before VGG sees them
Between = Callable[[Tensor, Tensor], Tensor]
"""Distances `[N]` of images `[N, C, H, W]` in [-1, 1], with gradients."""


@dataclass
class Projection:
    """`code` `[dim]` in `space`, its `image` uint8 `[C, H, W]`, the distance after each step, and images on the way."""

    space: str
    code: Tensor
    image: Tensor
    distances: list[float]
    start: float
    stages: list[Tensor] = field(default_factory=list)


def distance(x_nchw: Tensor, y_nchw: Tensor) -> Tensor:
    """Mean square difference `[N]`, averaged over the images and their halvings down to 4 px on the shorter side."""
    parts = []
    while True:
        parts.append((x_nchw - y_nchw).square().mean((1, 2, 3)))
        if min(x_nchw.shape[2:]) < 2 * SMALLEST:
            return torch.stack(parts).mean(0)
        x_nchw, y_nchw = (F.avg_pool2d(part, 2) for part in (x_nchw, y_nchw))


def perceived(lpips: Lpips) -> Between:
    """LPIPS in place of pixels, as the paper has it; images beyond 256 px are made smaller first."""

    def between(x_nchw: Tensor, y_nchw: Tensor) -> Tensor:
        while min(x_nchw.shape[2:]) > LARGEST:
            x_nchw, y_nchw = (F.avg_pool2d(part, 2) for part in (x_nchw, y_nchw))
        return lpips((x_nchw + 1) * 127.5, ((y_nchw + 1) * 127.5).expand(len(x_nchw), -1, -1, -1))

    return between


def project(
    g: Network,
    target: Tensor,
    *,
    steps: int = 300,
    seed: int = 0,
    stages: int = 8,
    between: Between = distance,
    advance: Callable[[float], None] = lambda amount: None,
) -> Projection:
    """The best code found in `steps` steps for `target`, uint8 `[C, H, W]` of the generator's size.

    `advance` hears of every step; `stages` images are kept from the way. Raises `SpecError`.
    """
    space = Space(g)
    wanted = (target[None].to(space.device).float() / 127.5) - 1
    code, start = _nearest(space, wanted, seed, between)
    expected = tuple(space.images(code).shape[1:])
    spread, length = space.moments(seed)[1], float(code.norm())
    code = code.clone().requires_grad_(True)
    optimiser = Adam([code], lr=RATE, betas=(0.9, 0.999))
    assert tuple(target.shape) == expected
    best, at = code.detach().clone(), start
    found, kept = list[float](), list[Tensor]()
    for step in range(steps):
        share = step / steps
        optimiser.param_groups[0]["lr"] = RATE * spread * _ramp(share)
        rng = generator(seed, "projection", step)
        noise = torch.randn(code.shape, generator=rng).to(space.device)
        loud = NOISE * spread * max(0.0, 1 - share / NOISE_SHARE) ** 2
        loss = between(space.images(code + loud * noise), wanted).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            if space.name == "z":
                code *= length / code.norm()
            now = float(between(space.images(code), wanted))
        if now < at:
            best, at = code.detach().clone(), now
        found.append(at)
        if stages and (step + 1) * stages // steps > step * stages // steps:
            kept.append(_image(space, best))
        advance(1)
    return Projection(space.name, best[0].cpu(), _image(space, best), found, start, kept)


def _ramp(share: float) -> float:
    """Share of the learning rate: up at first, down along a cosine at the end, as the authors do."""
    down = min(1.0, (1 - share) / COOL_DOWN)
    return (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, share / WARM_UP + 0.1)


@torch.no_grad()
def _nearest(space: Space, wanted: Tensor, seed: int, between: Between) -> tuple[Tensor, float]:
    """The nearest of random codes, and the mean code with them in w."""
    codes = space.codes(latents(seed, 0, CANDIDATES, space.g.latent_dim))
    if space.name == "w":
        codes = torch.cat([codes, space.moments(seed)[0][None]])
    shown = space.images(codes[:1])
    if shown.shape[1:] != wanted.shape[1:]:
        raise SpecError(
            f"the generator draws {'x'.join(map(str, shown.shape[1:]))} (channels, height, width); "
            f"received an image of {'x'.join(map(str, wanted.shape[1:]))}"
        )
    found = torch.cat([between(space.images(part), wanted) for part in codes.split(64)])
    best = int(found.argmin())
    return codes[best : best + 1].clone(), float(found[best])


@torch.no_grad()
def _image(space: Space, code: Tensor) -> Tensor:
    return to_uint8(space.images(code))[0].cpu()
