"""Small words that several parts of a report need: what a dataset's images are called, which way a metric is good."""

from __future__ import annotations

from typing import Any, Literal

from tlgan.recipe import DataSpec
from tlgan.registry import METRICS

NOUNS = {"digits": "digit", "glyphs": "glyph", "photos": "photo crop"}
NAMES = {"kid": "KID", "fid": "FID", "f1": "F1"}
HIGHER_IS_BETTER = ("accuracy", "f1")


def better_of(metric: str) -> Literal["min", "max"] | None:
    if metric in METRICS:
        return "min" if METRICS.facts(metric)["mode"] == "min" else "max"
    return "max" if metric in HIGHER_IS_BETTER else None


def metric_name(metric: str) -> str:
    """As it stands within a sentence: `KID`, `accuracy`."""
    return NAMES.get(metric, metric.replace("_", " "))


def metric_title(metric: str) -> str:
    name = metric_name(metric)
    return name[:1].upper() + name[1:]


def noun_of(spec: DataSpec | None, count: int = 2) -> str:
    """`digits`, `glyphs`, or `images` for what has no name of its own."""
    noun = NOUNS.get((spec.source if spec else None) or "", "image")
    return noun if count == 1 else f"{noun}s"


def data_label(spec: DataSpec) -> str:
    """`digits, train split`; the folder or file for data with a path, the artifact's name for an artifact."""
    if spec.artifact:
        name = spec.artifact.partition("@")[0].partition(":")[0]
    elif spec.path:
        name = spec.path.rstrip("/").rpartition("/")[2] or spec.path
    else:
        name = str(spec.source)
    return name if spec.split == "all" else f"{name}, {spec.split} split"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def as_data_spec(value: Any) -> DataSpec | None:
    """A stored `data` section; None when there is none or an older tlgan wrote it differently."""
    try:
        return DataSpec.model_validate(value) if value else None
    except ValueError:
        return None
