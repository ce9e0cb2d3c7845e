"""What is done to a report before it is drawn: long curves thinned, heavy films shortened, axes of a sweep found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tlgan.report.model import Axis, Curve, ReportData, RunSection, SweepSection

T = TypeVar("T")
MAX_POINTS = 800  # a curve; more cannot be told apart on a screen
MAX_FRAMES = 60  # a run
FRAME_BYTES = 8 << 20  # all films of the page together, before base64


def prepare(report: ReportData) -> ReportData:
    """The report in the form that is drawn; what the page holds is this, so the same input gives the same page."""
    runs = [replace(run, losses=_thinned(run.losses), metrics=_thinned(run.metrics)) for run in report.runs]
    sweeps = [replace(sweep, axes=axes_of(sweep)) for sweep in report.sweeps]
    return replace(report, runs=tuple(_within_budget(runs)), sweeps=tuple(sweeps))


def thin_curve(curve: Curve, most: int = MAX_POINTS) -> Curve:
    """At most about `most` points: of each stretch the lowest and the highest, so that spikes stay; ends are kept."""
    n = len(curve.kimg)
    if n <= most:
        return curve
    keep = {0, n - 1}
    buckets = most // 2 - 1
    for b in range(buckets):
        stretch = range(b * n // buckets, (b + 1) * n // buckets)
        finite = [i for i in stretch if math.isfinite(curve.values[i])]
        if finite:
            keep |= {min(finite, key=curve.values.__getitem__), max(finite, key=curve.values.__getitem__)}
        if len(finite) < len(stretch):
            keep.add(next(i for i in stretch if not math.isfinite(curve.values[i])))
    order = sorted(keep)
    return replace(curve, kimg=tuple(curve.kimg[i] for i in order), values=tuple(curve.values[i] for i in order))


def _thinned(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    return tuple(thin_curve(curve) for curve in curves)


def evenly(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most `most` (at least 2) items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return tuple(items)
    most = max(2, most)
    return tuple(items[round(i * (len(items) - 1) / (most - 1))] for i in range(most))


def _within_budget(runs: Sequence[RunSection]) -> list[RunSection]:
    """Halves the heaviest film until all films together keep to `FRAME_BYTES`."""
    films = [evenly(run.frames, MAX_FRAMES) for run in runs]
    weights = [sum(len(frame.png) for frame in film) for film in films]
    while sum(weights) > FRAME_BYTES:
        shortenable = [i for i, film in enumerate(films) if len(film) > 2]
        if not shortenable:
            break
        heaviest = max(shortenable, key=weights.__getitem__)
        films[heaviest] = evenly(films[heaviest], (len(films[heaviest]) + 1) // 2)
        weights[heaviest] = sum(len(frame.png) for frame in films[heaviest])
    return [replace(run, frames=film) for run, film in zip(runs, films, strict=True)]


def axes_of(sweep: SweepSection) -> tuple[Axis, ...]:
    """The sweep's axes, found from the values when the caller gave none; category axes get their choices."""
    names = list(dict.fromkeys(name for row in sweep.rows for name in row.params))
    axes = sweep.axes if sweep.axes is not None else tuple(Axis(name, _scale(_values(sweep, name))) for name in names)
    return tuple(_completed(axis, _values(sweep, axis.name)) for axis in axes)


def _values(sweep: SweepSection, name: str) -> list[Any]:
    return [row.params[name] for row in sweep.rows if row.params.get(name) is not None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scale(values: list[Any]) -> Any:
    if not values or not all(_is_number(v) for v in values):
        return "category"
    low, high = min(values), max(values)
    return "log" if low > 0 and high / low >= 20 and any(isinstance(v, float) for v in values) else "linear"


def _completed(axis: Axis, values: list[Any]) -> Axis:
    """A log axis with a value that has no logarithm becomes linear, a number axis with words a category axis."""
    scale = axis.scale
    if scale != "category" and not all(_is_number(v) for v in values):
        scale = "category"
    if scale == "log" and any(v <= 0 for v in values):
        scale = "linear"
    if scale != "category":
        return replace(axis, scale=scale)
    choices = list(axis.choices or [])
    for value in values:
        if value not in choices:
            choices.append(value)
    return Axis(axis.name, "category", tuple(choices))
