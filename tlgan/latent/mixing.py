"""Style mixing (Karras et al. 2019, figure 3): coarse styles of one image, fine styles of another."""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.latent.space import level_position, with_styles
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.sampling import draw_in_parts


@torch.no_grad()
def mixing_table(
    g: Network, block: str, rows: int, cols: int, seed: int = 0, truncation: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Images of `rows` seeds, of `cols` others, and all mixtures: uint8 `[rows, ...]`, `[cols, ...]`, `[rows * cols, ...]`.

    Mixture (r, c) has the styles of r before level `block` and those of c from there on. Raises `SpecError` for a network
    without styles or a level that it does not have.
    """
    space = with_styles(g, "style mixing")
    position = level_position(g, block)
    count = int(space.g.style_count)
    codes = space.codes(latents(seed, 0, rows + cols, g.latent_dim), truncation)
    coarse, fine = (part[:, None].expand(-1, count, -1) for part in codes.split([rows, cols]))
    mixed = coarse.repeat_interleave(cols, 0).clone()
    mixed[:, position:] = fine.repeat(rows, 1, 1)[:, position:]
    left, top, inner = (draw_in_parts(space.images, part) for part in (coarse, fine, mixed))
    return left, top, inner


def mixing_sheet(left: Tensor, top: Tensor, inner: Tensor) -> Tensor:
    """The images of one grid, row by row, for `to_grid(..., rows=len(left) + 1)`: a grey corner, `top`, then each row."""
    rows, cols = len(left), len(top)
    corner = torch.full_like(top[:1], 128)
    body = torch.cat([left[:, None], inner.unflatten(0, (rows, cols))], 1).flatten(0, 1)
    return torch.cat([corner, top, body])
