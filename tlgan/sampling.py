"""Images from a generator: reproducible by seed, whatever the batch size and however many are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tlgan.errors import SpecError, did_you_mean
from tlgan.models.blocks import Network
from tlgan.random import LATENT_BLOCK, generator, latents

BATCH = 4 * LATENT_BLOCK


def to_uint8(x_nchw: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, rounded to the nearest level."""
    return x_nchw.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


@torch.no_grad()
def draw(g: Network, z: Tensor, truncation: float = 1.0, labels: Tensor | None = None) -> Tensor:
    """uint8 images `[N, C, H, W]` on the CPU for latents `[N, latent_dim]`, in batches.

    `truncation` in [0, 1] draws latents, or styles where the network has them, towards their mean: less variety, more
    typical images. `labels` int64 `[N]` for a conditional network; without them one class after the other. Raises `SpecError`.
    """
    if not 0 <= truncation <= 1:
        raise SpecError(f"truncation: expected a number from 0 to 1, received {truncation}")
    device = next(g.parameters()).device
    if g.classes and labels is None:
        labels = torch.arange(len(z)) % len(g.classes)
    parts = []
    for rows in torch.split(torch.arange(len(z)), BATCH):
        given = {} if labels is None else {"labels": labels[rows].to(device)}
        parts.append(to_uint8(g.truncated(z[rows].to(device), truncation, **given)).cpu())
    return torch.cat(parts).contiguous()


@torch.no_grad()
def draw_in_parts(images: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
    """uint8 images on the CPU of codes `[N, ...]`, in batches; `images` maps codes to floats."""
    return torch.cat([to_uint8(images(part)).cpu() for part in torch.split(codes, BATCH)]).contiguous()


def labels_of(g: Network, seed: int, start: int, count: int, classes: Sequence[str] = ()) -> Tensor | None:
    """Classes of the samples `start .. start+count`, int64 `[count]`; None for a network without classes.

    In turn those of `classes`; by default random ones, as frequent as in training, that depend on `(seed, i)` only. Raises
    `SpecError` for a class that the network does not know.
    """
    known = g.classes
    for name in classes:
        if name not in known:
            expected = f"expected one of: {', '.join(known)}" if known else "this generator is not conditional"
            raise SpecError(f'there is no class "{name}"; {expected}', hint=did_you_mean(name, known))
    if classes:
        return torch.tensor([known.index(classes[i % len(classes)]) for i in range(start, start + count)])
    if not known:
        return None
    weights = torch.tensor(g.config["class_counts"], dtype=torch.float64)
    first, last = start // LATENT_BLOCK, -(-(start + count) // LATENT_BLOCK)
    blocks = [
        torch.multinomial(weights, LATENT_BLOCK, replacement=True, generator=generator(seed, "labels", block))
        for block in range(first, last)
    ]
    return torch.cat(blocks)[start - first * LATENT_BLOCK :][:count]


def generate(g: Network, n: int, seed: int = 0, truncation: float = 1.0, classes: Sequence[str] = ()) -> Tensor:
    """`n` images as uint8 `[n, C, H, W]`. Image i depends on `(seed, i)`, the generator and `classes` only.

    `g` is what `tlgan.load_generator` returned. `classes`: of a conditional generator, those to draw, one after the other.
    Raises `SpecError` for a negative `n`, a truncation outside [0, 1] or a class that `g` does not know.
    """
    if n < 1:
        raise SpecError(f"n: expected at least 1 image, received {n}")
    return torch.cat(list(stream(g, n, seed, truncation, classes)))


def stream(g: Network, n: int, seed: int = 0, truncation: float = 1.0, classes: Sequence[str] = ()) -> Iterator[Tensor]:
    """The images of `generate` in batches, so that a million need no memory."""
    dim = g.latent_dim
    for start in range(0, n, BATCH):
        count = min(BATCH, n - start)
        yield draw(g, latents(seed, start, count, dim), truncation, labels_of(g, seed, start, count, classes))


def interpolate(
    g: Network, steps: int, seed: int = 0, truncation: float = 1.0, ends: int = 2, classes: Sequence[str] = ()
) -> Tensor:
    """A walk through `ends` latents with `steps` images from each to the next: uint8 `[(ends-1)*steps + 1, C, H, W]`.

    Along great circles, for latents of a normal distribution lie near a sphere (White 2016, "Sampling generative networks").
    All of one class, the first of `classes` or of the generator.
    """
    if steps < 1 or ends < 2:
        raise SpecError(f"interpolation: expected at least 1 step and 2 ends, received {steps} and {ends}")
    z = latents(seed, 0, ends, g.latent_dim)
    share = torch.linspace(0, 1, steps + 1)[:-1, None]
    walk = [_slerp(a, b, share) for a, b in pairwise(z)]
    path = torch.cat([*walk, z[-1:]])
    return draw(g, path, truncation, labels_of(g, seed, 0, len(path), list(classes)[:1] or g.classes[:1]))


def _slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Points `[S, D]` on the arc from `a` to `b` at `share` `[S, 1]` in [0, 1)."""
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin().abs() < 1e-6:
        return torch.lerp(a, b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
