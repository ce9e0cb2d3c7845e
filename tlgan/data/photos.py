"""Random crops of scikit-learn's two colour photographs: a temple in China and a flower, 427x640 px each.

Crops of one photograph overlap, so `split` separates crops but not what they show.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from typing import Any

from PIL import Image

from tlgan.data.image import fit
from tlgan.data.select import random_keys
from tlgan.data.source import TooSmall, UInt8Array
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution, sides

_CROP_STREAM = 5
SMALLEST = 64  # px; smaller crops show only texture


class Photos:
    """`spec.crops` crops, the photographs in turn; longer sides log-uniform from 64 px (or the resolution) to 427 px."""

    channels = 3
    parallel = True
    own_split = False
    label_names = ["china", "flower"]  # noqa: RUF012

    def __init__(self, spec: DataSpec) -> None:
        self._count, self._seed = spec.crops, spec.seed

    @cached_property
    def _photos(self) -> list[Image.Image]:
        from sklearn.datasets import load_sample_image

        return [Image.fromarray(load_sample_image(f"{name}.jpg")) for name in self.label_names]

    def __len__(self) -> int:
        return self._count

    def name_of(self, index: int) -> str:
        return f"crop {index} of {self.label_names[index % 2]}.jpg"

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        label = index % 2
        photo = self._photos[label]
        height, width = sides(size)
        asked = max(height, width)
        largest = min(photo.width * asked // width, photo.height * asked // height)  # of the longer side
        if asked > largest:
            raise TooSmall(f"{self.label_names[label]}.jpg", *photo.size)
        scale, x, y = (float(word) / 2**64 for word in random_keys(3, self._seed, _CROP_STREAM, index))
        smallest = min(max(SMALLEST, asked), largest)
        side = round(smallest * (largest / smallest) ** scale) if largest > smallest else largest
        across, down = round(side * width / asked), round(side * height / asked)
        left, top = round(x * (photo.width - across)), round(y * (photo.height - down))
        return fit(photo.crop((left, top, left + across, top + down)), size, 3), label

    def fingerprint(self) -> dict[str, Any]:
        return {"scikit-learn": version("scikit-learn"), "crops": self._count, "seed": self._seed}
