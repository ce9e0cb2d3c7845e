"""How much of the differences between trials each searched parameter explains.

Functional analysis of variance (Hutter, Hoos, Leyton-Brown 2014), main effects only: a forest is fitted to the ranks of the
objective; a parameter's share is the variance of the forest's prediction along it, averaged over all others, of the variance of
all predictions. Where the paper integrates over the whole space, this averages over the trials there are. Ranks, so that one
diverged trial does not explain everything. A parameter that is idle in a trial counts as a value of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEAST_TRIALS = 6
TREES = 64


def importance(params: Sequence[Mapping[str, Any]], objective: Sequence[float | None]) -> dict[str, float]:
    """Parameter -> its share of the variance, in [0, 1], largest first. Empty with too few finite values to say anything."""
    rows = [(p, v) for p, v in zip(params, objective, strict=True) if v is not None and math.isfinite(v)]
    names = sorted({name for p, _ in rows for name in p})
    if len(rows) < LEAST_TRIALS or not names:
        return {}
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    table = np.array([[_code(name, p, rows) for name in names] for p, _ in rows], dtype=float)
    values = np.array([value for _, value in rows])
    ranks = np.searchsorted(np.sort(values), values).astype(float)  # equal values have equal ranks
    forest = RandomForestRegressor(n_estimators=TREES, min_samples_leaf=2, random_state=0, n_jobs=1).fit(table, ranks)
    total = float(forest.predict(table).var())
    if total == 0:
        return {}
    shares = {}
    for column, name in enumerate(names):
        along = np.repeat(table[None], len(table), axis=0)  # [value of this parameter, trial, parameter]
        along[:, :, column] = table[:, column][:, None]
        means = forest.predict(along.reshape(-1, len(names))).reshape(len(table), -1).mean(1)
        shares[name] = min(1.0, float(means.var()) / total)
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _code(name: str, params: Mapping[str, Any], rows: Sequence[tuple[Mapping[str, Any], Any]]) -> float:
    """A value as a number: itself, or its place among those that occur; below all others where the parameter is idle."""
    known = [p[name] for p, _ in rows if name in p]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if numeric:
        return float(params[name]) if name in params else min(known) - 1.0
    places = sorted({repr(value) for value in known})
    return float(places.index(repr(params[name]))) if name in params else -1.0
