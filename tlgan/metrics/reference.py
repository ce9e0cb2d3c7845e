"""What an extractor sees in the images of a dataset, computed once for each pair of the two and kept in the cache."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlgan.canonical import digest_of
from tlgan.data import cache_root
from tlgan.distributed import World
from tlgan.errors import DataError
from tlgan.metrics.features import Extractor
from tlgan.metrics.looking import looker, rows_of
from tlgan.metrics.pictures import Stored

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset

logger = logging.getLogger(__name__)


def reference_features(dataset: Dataset, extractor: Extractor, cache_dir: Path | None = None) -> np.ndarray:
    """float32 [N, D], in the order of the dataset; see `stored_rows`."""
    return stored_rows(dataset, {"features"}, extractor, cache_dir=cache_dir)["features"]


def stored_rows(
    dataset: Dataset,
    views: set[str],
    extractor: Extractor,
    *,
    world: World | None = None,
    cache_dir: Path | None = None,
    mirrored: bool = False,
) -> dict[str, np.ndarray]:
    """What the extractor sees in a dataset's images (`looking.EXTRACTED`), float32 [N, ...] by view, on rank 0.

    From `cache_dir` (default: tlgan's cache) when it is there; otherwise all ranks compute it. A damaged cache file is
    made again; a cache that can't be written is not used, with a warning. Raises `DataError` for an empty dataset.
    """
    if len(dataset) == 0:
        raise DataError("the reference dataset is empty", hint="check `data` (split, classes, limit)")
    world = world or World()
    folder = (cache_dir or cache_root()) / "features"
    files = {view: folder / f"{_key(dataset, extractor, view, mirrored)}.npy" for view in sorted(views)}
    found = {view: _read(file, len(dataset)) for view, file in files.items()} if world.is_main else {}
    rows = {view: features for view, features in found.items() if features is not None}
    if not world.agree(len(rows) < len(found)):
        return rows
    rows = rows_of(Stored(dataset, mirrored=mirrored), looker(views, extractor), world)
    for view, features in rows.items():
        _write(files[view], features)
    return rows


def _key(dataset: Dataset, extractor: Extractor, view: str, mirrored: bool) -> str:
    seen = {} if view == "features" else {"view": view}
    how = {"mirrored": True} if mirrored else {}
    return digest_of({"dataset": dataset.digest, "extractor": extractor.digest, **seen, **how})


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
