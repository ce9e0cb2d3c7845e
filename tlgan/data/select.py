"""Which images of a source a spec asks for: classes, then split, then limit, all from `seed`.

- An image's side of the split is decided within its label over the whole source, so it does not change with `classes`
  or `limit`; each label gives its share (to within one image). `train` and `test` are disjoint and together `all`.
- `limit` takes each label's share too: a hundred of ten equal classes are ten of each, not four of one and fifteen of
  another. A smaller one picks a subset of what a larger one picks. The images keep the source's order.

Random keys are raw PCG64 output, whose stream numpy guarantees across versions (it does not for `permutation`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tlgan.data.source import Int64Array
from tlgan.errors import DataError, did_you_mean
from tlgan.recipe import DataSpec

_SPLIT_STREAM, _LIMIT_STREAM = 1, 2


def random_keys(count: int, *entropy: int) -> npt.NDArray[np.uint64]:
    """`count` 64-bit keys; sorting by them shuffles. The same on every machine and with every numpy."""
    return np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)


def select(labels: Int64Array, label_names: list[str], spec: DataSpec, *, own_split: bool = False) -> Int64Array:
    """Ascending indices of the images `spec` keeps. Raises `DataError` for an unknown class or when none is left."""
    keep = np.ones(len(labels), bool)
    if spec.classes is not None:
        keep &= np.isin(labels, class_ids(spec.classes, label_names))
    if spec.split != "all" and not own_split:
        keep &= in_test(labels, spec) == (spec.split == "test")
    chosen = np.flatnonzero(keep)
    if spec.limit is not None and spec.limit < len(chosen):
        keys = random_keys(len(labels), spec.seed, _LIMIT_STREAM)[chosen]
        chosen = np.sort(chosen[_evenly(labels[chosen], keys)[: spec.limit]])
    if len(chosen) == 0:
        asked = f"classes {spec.classes}, split {spec.split}" if spec.classes else f"split {spec.split}"
        raise DataError(
            f"no image is left of {len(labels)} after selecting {asked}",
            hint="widen `classes`, or set `split: all` or another `test_share`",
        )
    return chosen


def _evenly(labels: Int64Array, keys: npt.NDArray[np.uint64]) -> Int64Array:
    """A random order of which every beginning has each label's share (to within one image)."""
    order = np.lexsort((keys, labels))
    _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, count)
    position = np.empty(len(labels))
    position[order] = (rank + 0.5) / np.repeat(count, count)
    return np.lexsort((keys, position))


def in_test(labels: Int64Array, spec: DataSpec) -> npt.NDArray[np.bool_]:
    """True for the images of the test split."""
    count = len(labels)
    order = np.lexsort((random_keys(count, spec.seed, _SPLIT_STREAM), labels))  # by label, shuffled within
    position = np.arange(count + 1)
    taken = np.floor(position * spec.test_share + 0.5)  # how many of the first so many are in test
    test = np.zeros(count, bool)
    test[order] = np.diff(taken) > 0
    return test


def class_ids(classes: list[str], label_names: list[str]) -> list[int]:
    """Labels of the named classes."""
    unknown = [name for name in classes if name not in label_names]
    if unknown and not label_names:
        raise DataError(f"`classes` asks for {', '.join(classes)}, but the data has no labels", hint="remove `classes`")
    if unknown:
        some = ", ".join(label_names[:20]) + (", ..." if len(label_names) > 20 else "")
        near = did_you_mean(unknown[0], label_names)
        raise DataError(f"unknown classes {', '.join(unknown)}; the data has: {some}", hint=near)
    return [label_names.index(name) for name in classes]
