"""Images for training and for reference: sources, the memory-mapped cache, the loader and packing to Parquet.

Legend: `images` is uint8 `[N, C, H, W]` with C 1 (grey) or 3 (RGB) and H == W; `labels` is int64 `[N]`, -1 for none.
Importing this package costs nothing: names are loaded when first used, torch only with the loader.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset, prepare
    from tlgan.data.loader import Batch, Loader
    from tlgan.data.pack import write_parquet

_LAZY = {
    "Dataset": "tlgan.data.dataset",
    "prepare": "tlgan.data.dataset",
    "Batch": "tlgan.data.loader",
    "Loader": "tlgan.data.loader",
    "write_parquet": "tlgan.data.pack",
}
__all__ = ["Batch", "Dataset", "Loader", "cache_root", "prepare", "write_parquet"]


def cache_root() -> Path:
    """Where prepared data is kept: `$TLGAN_CACHE`, or `~/.cache/tlgan`."""
    given = os.environ.get("TLGAN_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "tlgan"


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tlgan.data' has no attribute {name!r}")
