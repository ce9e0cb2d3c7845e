"""Population based training (Jaderberg et al. 2017): all trials train side by side; the bad ones take over the good ones' state.

After every interval the whole population is ranked (truncation selection). A trial in the last `quantile` goes on from the
checkpoint of one in the first: weights, moving average and the optimisers' moments, by parameter name, so that trials with
different freeze depths can exchange them. Its own values are then the other's, each multiplied by 0.8 or 1.2 or moved by one
step, or drawn anew with probability `resample`. A generation is decided when all of it is measured, and its random numbers
depend on seed, generation and trial: timing has no say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.search.member import Decision, Member, ordinal
from cluster.search.points import Params, active, draw
from cluster.search.rules import Rule
from cluster.space import Space, in_order

FACTORS = (0.8, 1.2)
TAG = 0x9B7


class Population(Rule):
    """A rule (see `cluster.search.rules.Rule`) that exchanges state instead of stopping."""

    keeps_state = True

    def __init__(self, space: Mapping[str, Space], every: int, quantile: float, resample: float, seed: int) -> None:
        self.space, self.every = space, every
        self.quantile, self.resample, self.seed = quantile, resample, seed

    def marks(self, number: int, total: int) -> tuple[int, ...]:
        return tuple(range(self.every, total, self.every))

    def decide(self, members: Sequence[Member], member: Member, planned: int) -> Decision | None:
        mine = member.undecided
        assert mine is not None
        assert mine.rung is not None
        if len(members) < planned or not all(other.settled(mine.rung) for other in members):
            return None
        ranked = sorted((m.score, other.number) for other in members if (m := other.at(mine.rung)))
        place = ranked.index((mine.score, member.number))
        why = f"{mine.value:.4g}, {ordinal(place + 1)} of {len(ranked)} at {mine.nimg / 1000:g} kimg"
        cut = min(len(ranked) // 2, math.ceil(len(ranked) * self.quantile))
        if place < len(ranked) - cut:
            return Decision("promoted", why)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, TAG, mine.rung, member.number]))
        source = members[ranked[int(rng.integers(cut))][1]]
        params = self.explore(source.params_at(mine.nimg), rng)
        return Decision("copied", f"{why}; goes on from trial {source.name}", source.name, params)

    def explore(self, params: Params, rng: np.random.Generator) -> Params:
        """New values near `params`. A field that becomes active without a value of its own is drawn."""
        moved: Params = {}
        for path in in_order(self.space):
            fresh = rng.random() < self.resample or path not in params
            moved[path] = draw(self.space[path], rng) if fresh else step(self.space[path], params[path], rng)
        return active(self.space, moved)


def step(space: Space, value: Any, rng: np.random.Generator) -> Any:
    """A value next to `value`: 0.8 or 1.2 times it, or one step up or down, inside the space."""
    up = bool(rng.integers(2))
    if space.choice is not None:
        place = space.choice.index(value) + (1 if up else -1)
        return space.choice[min(max(place, 0), len(space.choice) - 1)]
    low, high = space.values
    moved = value + (1 if up else -1) if space.kind == "int" else value * FACTORS[up]
    return min(max(moved, low), high)
