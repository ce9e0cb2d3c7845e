"""Where the images of a measurement come from, in numbered blocks: any rank can make any block, and makes the same one.

Legend: N images; C channels; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from tlgan.errors import DataError
from tlgan.metrics.features import CHUNK, check_images, rechunk
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.sampling import draw, labels_of

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset


class Pictures(Protocol):
    """Images in blocks of `CHUNK` (the last may be smaller). Blocks are asked for in ascending order.

    `count`: of images; None for a stream that is read by one rank.
    """

    @property
    def count(self) -> int | None: ...

    def block(self, number: int) -> Tensor | None:
        """Block `number`, uint8 [N, C, H, W] on the CPU; None beyond the end."""
        ...


class Generated:
    """`count` images of a generator: image i depends on `(seed, i)` and the generator only. `check` runs before each block."""

    def __init__(self, g: Network, count: int, seed: int, check: Callable[[], None] = lambda: None) -> None:
        self.g, self.count, self.seed, self.check = g, count, seed, check

    def latents(self, number: int) -> Tensor | None:
        """[N, latent_dim] of a block; None beyond the end."""
        start = number * CHUNK
        if start >= self.count:
            return None
        self.check()
        return latents(self.seed, start, min(CHUNK, self.count - start), self.g.latent_dim)

    def block(self, number: int) -> Tensor | None:
        z = self.latents(number)
        return None if z is None else draw(self.g, z, labels=labels_of(self.g, self.seed, number * CHUNK, len(z)))


class Stored:
    """The images of a dataset, or those at `rows` of it; `mirrored` left-right."""

    def __init__(self, dataset: Dataset, rows: np.ndarray | None = None, mirrored: bool = False) -> None:
        self.images, self.rows, self.mirrored = dataset.images, rows, mirrored
        self.count = len(self.images if rows is None else rows)

    def block(self, number: int) -> Tensor | None:
        part = slice(number * CHUNK, (number + 1) * CHUNK)
        picked = self.images[part] if self.rows is None else self.images[self.rows[part]]
        images = torch.from_numpy(np.array(picked))  # a copy: the memory map is read-only
        return None if len(images) == 0 else images.flip(3) if self.mirrored else images


class Given:
    """A stream of uint8 batches, however it was cut, read once."""

    count = None

    def __init__(self, stream: Iterable[Tensor]) -> None:
        self._blocks: Iterator[Tensor] = rechunk(_checked(stream))

    def block(self, number: int) -> Tensor | None:
        return next(self._blocks, None)


def _checked(stream: Iterable[Tensor]) -> Iterator[Tensor]:
    for number, batch in enumerate(stream):
        yield check_images(batch, f"generated images, batch {number}")


class SameShape:
    """`pictures`, each block checked to be of the reference's shape `[C, H, W]`. Raises `DataError`."""

    def __init__(self, pictures: Pictures, shape: list[int]) -> None:
        self.pictures, self.shape = pictures, shape

    @property
    def count(self) -> int | None:
        return self.pictures.count

    def block(self, number: int) -> Tensor | None:
        images = self.pictures.block(number)
        if images is not None and list(images.shape[1:]) != self.shape:
            raise DataError(
                f"generated images are {list(images.shape[1:])}, the reference is {self.shape} (channels, height, width)",
                hint="set `resolution` and `channels` of the reference data to those of the generator",
            )
        return images
