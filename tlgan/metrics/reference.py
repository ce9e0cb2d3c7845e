"""Features of the reference images, computed once for each (dataset, extractor) and kept in the cache."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tlgan.data import cache_root
from tlgan.errors import DataError
from tlgan.metrics.features import CHUNK, Extractor, extract
from tlgan.recipe import digest_of

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset

logger = logging.getLogger(__name__)


def reference_features(dataset: Dataset, extractor: Extractor, cache_dir: Path | None = None) -> np.ndarray:
    """float32 [N, D], in the order of the dataset; from `cache_dir` (default: tlgan's cache) when it is there.

    A damaged cache file is made again; a cache that can't be written is not used, with a warning.
    Raises `DataError` for an empty dataset.
    """
    if len(dataset) == 0:
        raise DataError("the reference dataset is empty", hint="check `data` (split, classes, limit)")
    key = digest_of({"dataset": dataset.digest, "extractor": extractor.digest})
    file = (cache_dir or cache_root()) / "features" / f"{key}.npy"
    features = _read(file, len(dataset))
    if features is None:
        features = extract(extractor, _batches(dataset))
        _write(file, features)
    return features


def _batches(dataset: Dataset) -> Iterator[Tensor]:
    for start in range(0, len(dataset), CHUNK):
        yield torch.from_numpy(np.array(dataset.images[start : start + CHUNK]))  # a copy: the memory map is read-only


def _read(file: Path, count: int) -> np.ndarray | None:
    try:
        features = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logger.warning("cached features %s can't be read (%s): computing them again", file, error)
        return None
    whole = isinstance(features, np.ndarray) and features.ndim == 2 and len(features) == count
    return features if whole and features.dtype == np.float32 else None


def _write(file: Path, features: np.ndarray) -> None:
    """A temporary file beside it, then a rename: readers and other writers see all of it or nothing."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        logger.warning("features are not cached: %s", error)
        return
    try:
        with os.fdopen(handle, "wb") as out:
            np.save(out, features, allow_pickle=False)
        Path(name).chmod(0o644)  # mkstemp's 0600 would hide a shared cache from other users
        Path(name).replace(file)
    except OSError as error:
        logger.warning("features are not cached: %s", error)
        with contextlib.suppress(OSError):
            Path(name).unlink()
