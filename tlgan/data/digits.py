"""scikit-learn's 1 797 handwritten digits (UCI, 8x8, 17 grey values), enlarged until they look like pen strokes."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tlgan.data.source import UInt8Array
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution, sides

MARGIN = 0.06  # share of the side left black around the 8x8 grid
CONTRAST = 2.2  # steepness of the edge between paper and ink


class Digits:
    """White on black, labels "0" to "9"."""

    channels = 1
    parallel = False
    own_split = False

    def __init__(self, spec: DataSpec) -> None:
        self.label_names = [str(d) for d in range(10)]

    @cached_property
    def _data(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images.astype(np.float32) / 16, bunch.target.astype(np.int64)

    def __len__(self) -> int:
        return len(self._data[1])

    def name_of(self, index: int) -> str:
        return f"digit {index} ({self._data[1][index]})"

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        images, labels = self._data
        return enlarge(images[index], size)[None], int(labels[index])

    def fingerprint(self) -> dict[str, Any]:
        return {"scikit-learn": version("scikit-learn")}


def enlarge(ink: npt.NDArray[np.float32], size: Resolution) -> UInt8Array:
    """8x8 shares of ink in [0, 1] to uint8 `[height, width]`, the digit in the middle.

    The data are counts of inked pixels per 4x4 cell of a 32x32 bitmap. A smooth interpolation of them, cut with a soft
    threshold near one half, gives back strokes with an antialiased edge instead of a blur.
    """
    inner = max(8, round(min(sides(size)) * (1 - 2 * MARGIN)))
    padded = Image.fromarray(np.pad(ink, 1))
    shape = np.asarray(padded.resize((inner, inner), Image.Resampling.BICUBIC, box=(1, 1, 9, 9)))
    edge = np.clip((shape - 0.5) * CONTRAST + 0.5, 0, 1)
    image = np.zeros(sides(size), np.uint8)
    top, left = ((side - inner) // 2 for side in image.shape)
    image[top : top + inner, left : left + inner] = np.rint(edge * 255).astype(np.uint8)
    return image
