"""Layer blending (Pinkney & Adler 2020): the coarse blocks of one generator with the fine blocks of its relative.

Two networks that were fine-tuned from one parent still understand each other's features; shapes then come from the one and
textures from the other.
"""

from __future__ import annotations

import torch

from tlgan.errors import SpecError, did_you_mean
from tlgan.models import build_network
from tlgan.models.blocks import Network


def blend(coarse: Network, fine: Network, block: str) -> Network:
    """A generator with `coarse`'s blocks before `block` and `fine`'s from there on, in eval mode.

    Raises `SpecError` for networks of different kinds, an unknown block, or the first one (that would be `fine` itself).
    """
    if (coarse.arch, coarse.config) != (fine.arch, fine.config):
        unlike = [k for k in {**coarse.config, **fine.config} if coarse.config.get(k) != fine.config.get(k)]
        what = ", ".join(f"{k} {coarse.config.get(k)} and {fine.config.get(k)}" for k in unlike) or "their arch"
        raise SpecError(f"the two generators are built differently: {coarse.arch} and {fine.arch}, {what}")
    names = list(coarse.blocks)
    if block not in names[1:]:
        expected = f'expected a block of the generator from which the second model\'s are taken; received "{block}"'
        raise SpecError(expected, hint=did_you_mean(block, names[1:]) or f"blocks: {', '.join(names[1:])}")
    position = names.index(block)
    mixed = build_network(coarse.arch, coarse.role, coarse.config)
    theirs = {name: tensor for name, tensor in fine.state_dict().items() if _block_of(name) in names[position:]}
    mixed.load_state_dict({**coarse.state_dict(), **theirs})
    return mixed.eval().requires_grad_(False)


def relationship(coarse: Network, fine: Network) -> float:
    """Cosine of the two networks' weights, all as one vector: near 1 for relatives, near 0 for strangers."""
    a, b = (
        torch.cat([p.detach().flatten().double() for p in network.parameters() if p.dim() > 1])
        for network in (coarse, fine)
    )
    return float(a @ b / (a.norm() * b.norm()))


def _block_of(tensor: str) -> str:
    return tensor.split(".")[1]
