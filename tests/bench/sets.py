"""Small sets from the embedded data, grey at 32 px, by name: scripts, digits and crops of one photograph."""

from __future__ import annotations

from typing import Any

PHOTOS = {"temple": "china", "flower": "flower"}


def data_of(name: str) -> dict[str, Any]:
    """The `data:` section of a set."""
    if name == "digits":
        return {"source": "digits"}
    if name == "glyphs":
        return {"source": "glyphs"}
    if name in PHOTOS:
        return {"source": "photos", "classes": [PHOTOS[name]], "channels": 1, "crops": 3000}
    return {"source": "glyphs", "classes": [name.upper()]}


def few(name: str, seed: int, images: int) -> dict[str, Any]:
    """So many images of a set; another seed takes others."""
    return {**data_of(name), "split": "train", "limit": images, "seed": seed}


def held_out(name: str, seed: int) -> dict[str, Any]:
    """The half of a set that `few` of the same seed never takes from."""
    return {**data_of(name), "split": "test", "seed": seed}


def quiet(kimg: float) -> dict[str, Any]:
    """A checkpoint and a grid at the end alone."""
    return {"checkpoint": {"every_kimg": kimg}, "grid": {"every_kimg": kimg}}
