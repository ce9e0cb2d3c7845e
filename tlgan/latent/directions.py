"""Directions that change an image most, in closed form: SeFa (Shen & Zhou 2021).

The first layer that reads a code multiplies it by a matrix A; the unit vectors n that make |A n| largest are the
eigenvectors of A^T A. Where every level reads the code (styles), the levels' matrices stand below one another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tlgan.errors import SpecError
from tlgan.latent.space import Space, level_position
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.sampling import draw_in_parts


def reading_matrix(g: Network, levels: list[str] | None = None) -> Tensor:
    """`[outputs, dim]`: what a code is multiplied by first. `levels`: only these, of a network with styles.

    Raises `SpecError` for an unknown level, or levels of a network that reads its latents once.
    """
    if Space(g).name == "w":
        for level in levels or ():
            level_position(g, level)
        names = levels or [name for name in g.blocks if hasattr(g.blocks[name], "convs")]
        layers: list[Any] = [m for name in names for m in g.blocks[name].modules() if hasattr(m, "affine")]
        return torch.cat([layer.affine.weight.detach().float() for layer in layers])
    if levels:
        raise SpecError(f"levels are for networks with styles (stylegan2); {g.arch} reads its latents once")
    first: Any = next((m for m in g.modules() if isinstance(m, nn.Linear | nn.ConvTranspose2d | nn.Conv2d)), None)
    assert first is not None, f"{g.arch} has no layer that reads latents"
    weight = first.weight.detach().float()
    matrix: Tensor = weight.flatten(1).T if isinstance(first, nn.ConvTranspose2d) else weight.flatten(1)
    assert matrix.shape[1] >= g.latent_dim, f"the first layer of {g.arch} does not read its latents"
    return matrix[:, : g.latent_dim]  # a class's vector may follow the latent


def directions(g: Network, count: int, levels: list[str] | None = None) -> tuple[Tensor, Tensor]:
    """The `count` strongest directions, unit rows `[count, dim]`, and their gains |A n|^2 in falling order `[count]`.

    A direction's sign is arbitrary: its largest component is made positive. Raises `SpecError`.
    """
    matrix = reading_matrix(g, levels).double()
    if not 1 <= count <= matrix.shape[1]:
        raise SpecError(f"expected 1 to {matrix.shape[1]} directions, the length of a code; received {count}")
    gains, vectors = torch.linalg.eigh(matrix.T @ matrix)
    found = vectors.T.flip(0)[:count]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return (found * largest.sign()).float(), gains.flip(0)[:count].float()


@torch.no_grad()
def edits(
    g: Network, found: Tensor, strength: float, steps: int, seed: int = 0, levels: list[str] | None = None
) -> Tensor:
    """Image `seed` moved along each direction, from `-strength` to `+strength` typical distances: uint8 `[K * steps, ...]`.

    The typical distance is the root mean square length of codes about their mean. With `levels`, only these are moved.
    """
    space = Space(g)
    _, spread = space.moments()
    base = space.codes(latents(seed, 0, 1, g.latent_dim))
    ways = torch.linspace(-strength, strength, steps, device=space.device) * spread * space.dim**0.5
    moved = found.to(space.device)[:, None] * ways[None, :, None]
    codes = (base + moved).flatten(0, 1)
    if levels:
        G: Any = g
        styles = base[:, None].expand(len(codes), G.style_count, -1).clone()
        for level in levels:
            start = level_position(g, level)
            end = start + len(G.blocks[level].convs)
            styles[:, start:end] = codes[:, None]
        codes = styles
    return draw_in_parts(space.images, codes)
