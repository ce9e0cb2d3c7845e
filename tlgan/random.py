"""Randomness as a function of (seed, what for, position): nothing to save, nothing that depends on the number of workers.

Every draw names its purpose ("z", "augment/real", ...) and its position (a step or a block of samples). The key is
hashed to the seed of a fresh generator, so step 1000 can be drawn without drawing the 999 before it.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

LATENT_BLOCK = 64


def generator(seed: int, purpose: str, position: int = 0) -> torch.Generator:
    """A CPU generator for one purpose at one position."""
    key = hashlib.blake2b(f"{seed}/{purpose}/{position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


def latents(seed: int, start: int, count: int, dim: int) -> Tensor:
    """Standard normal latents `[count, dim]` of the samples `start .. start+count`: row i depends on `(seed, start+i)` only.

    Drawn in blocks of 64 samples, so a sample's latent does not depend on batch size or on how many are asked for.
    """
    first, last = start // LATENT_BLOCK, -(-(start + count) // LATENT_BLOCK)
    blocks = [
        torch.randn(LATENT_BLOCK, dim, generator=generator(seed, "latents", block)) for block in range(first, last)
    ]
    rows = torch.cat(blocks) if blocks else torch.empty(0, dim)
    offset = start - first * LATENT_BLOCK
    return rows[offset : offset + count]
