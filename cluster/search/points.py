"""Points of a search space: random draws and the walk over a grid. A point maps paths to values; idle fields are left out.

Draw number k is a function of the space, the seed and k: however many trials there are and whenever they begin, trial k of
a random search is the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cluster.space import Space, in_order
from tlgan.canonical import canonical_json

Params = dict[str, Any]
DRAWS = 50  # in a row that were there before: the space counts as used up
TAG = 0x5EA2C4


def sample(
    space: Mapping[str, Space], algo: str, trials: int, seed: int, base: Mapping[str, Any] | None = None
) -> list[Params]:
    """The first `trials` points, fewer where the space has fewer."""
    found = grid(space) if algo == "grid" else draws(space, seed, base, trials * DRAWS)
    return list(itertools.islice(found, trials))


def grid(space: Mapping[str, Space]) -> Iterator[Params]:
    """All points, the last path in alphabetical order turning fastest. Fields that are idle are not told apart."""
    axes = [[(path, value) for value in one.grid() or []] for path, one in sorted(space.items())]
    seen: set[bytes] = set()
    for values in itertools.product(*axes):
        point = active(space, dict(values))
        if (key := canonical_json(point)) not in seen:
            seen.add(key)
            yield point


def grid_size(space: Mapping[str, Space]) -> int:
    """How many points a grid has."""
    if any(one.when for one in space.values()):
        return sum(1 for _ in grid(space))
    return math.prod(len(one.grid() or []) for one in space.values())


def draws(
    space: Mapping[str, Space], seed: int, base: Mapping[str, Any] | None = None, most: int | None = None
) -> Iterator[Params]:
    """Points at random, no two alike, until the space seems used up or `most` were drawn.

    The first is that of the spec `base`, if the space has its values. Paths are taken in alphabetical order: a spec gives the
    same points however its keys were sorted on the way.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, TAG]))
    seen: set[bytes] = set()
    if base is not None and (own := own_point(space, base)) is not None:
        seen.add(canonical_json(own))
        yield own
    in_vain = 0
    for _ in itertools.count() if most is None else range(most):
        point = active(space, {path: draw(one, rng) for path, one in sorted(space.items())})
        if (key := canonical_json(point)) not in seen:
            seen.add(key)
            in_vain = 0
            yield point
        elif (in_vain := in_vain + 1) >= DRAWS * max(8, len(seen)):
            return


def own_point(space: Mapping[str, Space], base: Mapping[str, Any]) -> Params | None:
    """The values that `base` has at the paths of the space; None when one of them could not be drawn."""
    point: Params = {}
    for path in in_order(space):
        if not space[path].is_active(point):
            continue
        value: Any = base
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not space[path].has(value):
            return None
        point[path] = value
    return dict(sorted(point.items()))


def active(space: Mapping[str, Space], point: Mapping[str, Any]) -> Params:
    """`point` without the fields that are idle in it."""
    kept: Params = {}
    for path in in_order(space):
        if path in point and space[path].is_active(kept):
            kept[path] = point[path]
    return dict(sorted(kept.items()))


def draw(space: Space, rng: np.random.Generator) -> Any:
    low, high = space.values[0], space.values[-1]
    if space.kind == "int":
        return int(rng.integers(low, high, endpoint=True))
    if space.kind == "uniform":
        return float(rng.uniform(low, high))
    if space.kind == "log_uniform":
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    return space.values[int(rng.integers(len(space.values)))]
