"""What a data source is. Adding one is a file with such a class and a line in `tlgan.registry.SOURCES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tlgan.errors import DataError
from tlgan.recipe import DataSpec
from tlgan.registry import SOURCES
from tlgan.shapes import Resolution

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
NO_LABEL = -1


class BrokenImage(Exception):
    """An image that can't be read. It is left out of the dataset and reported by name with the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class TooSmall(Exception):
    """An image with fewer pixels than asked for. Enlarging it would invent detail, so the dataset is refused."""

    def __init__(self, name: str, width: int, height: int) -> None:
        super().__init__(f"{name}: {width}x{height}")
        self.name = name
        self.width = width
        self.height = height


class Source(Protocol):
    """A finite, ordered collection of images. Built as `cls(spec)`; building it opens and lists, but decodes nothing.

    `channels`     1 or 3, as the images are; 2 or 4 where the spec asks for alpha and the images may have it.
    `label_names`  the name of label k at position k; empty when there are no labels.
    `parallel`     `read` may be called from several threads and gains from it (decoders release Python's lock).
    `own_split`    `spec.split` chose among parts that the dataset itself comes with; it must not be split again.
    """

    parallel: bool
    own_split: bool

    @property
    def channels(self) -> int: ...

    @property
    def label_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def name_of(self, index: int) -> str:
        """What a person would call the image: a file's path, a character and its font."""

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        """uint8 `[channels, height, width]` and the label (-1: none). Raises `BrokenImage`, `TooSmall`."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able facts that change whenever the images may have changed. Cheap: nothing is decoded."""


def open_source(spec: DataSpec, artifact_path: Path | None = None) -> Source:
    """The source that `spec` names; for a dataset artifact, the Parquet files pulled to `artifact_path`.

    Raises `DataError` for a location that can't be used, `NotFound` for one that does not exist.
    """
    if spec.artifact is None:
        return _built(SOURCES.load((spec.source or "").partition(":")[0]), spec)
    if artifact_path is None:
        raise DataError(f"dataset artifact {spec.artifact} was not fetched", hint="pull it and pass `artifact_path`")
    pulled = spec.model_copy(update={"source": "parquet", "artifact": None, "path": str(artifact_path)})
    return _built(SOURCES.load("parquet"), pulled)


def _built(cls: type[Source], spec: DataSpec) -> Source:
    return cls(spec)  # type: ignore[call-arg]
