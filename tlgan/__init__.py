"""tlgan: transfer learning for GANs. The library needs neither ray nor boto3; names are imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Recipe": "tlgan.recipe",
    "ClassifierRecipe": "tlgan.recipe",
    "TlganError": "tlgan.errors",
    "load_generator": "tlgan.artifact",
    "generate": "tlgan.sampling",
}
__all__ = ["__version__", *_LAZY]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'tlgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
