"""Rules that end hopeless trials early. What they decide depends on what was measured, never on who reported first.

ASHA and the median rule judge a trial against those of *lower number* alone: trial i at a rung waits until trials 0 ... i - 1
have either reached that rung or are over. They began before it, so the wait is short, trial 0 waits for nobody, and the same
trials get the same verdicts however many run at a time, in whatever order they report, and after any number of restarts.
Hyperband fills a rung before it decides; trials wait in the store meanwhile (`keeps_state`), not on a processor.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cluster.search.member import Decision, Member, ordinal

MIN_OTHERS = 3  # the median of fewer says nothing


class Rule(Protocol):
    """`keeps_state`: trials leave a checkpoint at each mark, so that they can wait without a place to run."""

    keeps_state: bool

    def marks(self, number: int, total: int) -> tuple[int, ...]:
        """Images after which trial `number` of `total` images is measured, rising, all below `total`."""
        ...

    def decide(self, members: Sequence[Member], member: Member, planned: int) -> Decision | None:
        """About the last measurement of `member`; None while it is too early. `planned`: trials there will be."""
        ...

    def beside(self, members: Sequence[Member], member: Member, nimg: int, trials: int) -> int | None:
        """How many trials train after the decision about `member` at `nimg`; None where the clock has a say in that.

        `trials`: asked for. That a grid has fewer points is found out at some time or other.
        """
        return None


class Never(Rule):
    """Every trial runs to its end."""

    keeps_state = False

    def marks(self, number: int, total: int) -> tuple[int, ...]:
        return ()

    def decide(self, members: Sequence[Member], member: Member, planned: int) -> Decision | None:
        raise AssertionError("there are no rungs")


class Asha(Rule):
    """Asynchronous successive halving (Li et al. 2020), in its stopping form, trials taken in the order of their numbers.

    At rungs grace, grace * eta, ... a trial goes on unless it is worse than the 1 - 1/eta quantile of those before it.
    """

    keeps_state = False

    def __init__(self, grace: int, eta: int) -> None:
        self.grace, self.eta = grace, eta

    def marks(self, number: int, total: int) -> tuple[int, ...]:
        step, found = self.grace, []
        while step < total:
            found.append(step)
            step *= self.eta
        return tuple(found)

    def decide(self, members: Sequence[Member], member: Member, planned: int) -> Decision | None:
        mine = member.undecided
        assert mine is not None
        assert mine.rung is not None
        before = members[: member.number]
        if not all(other.settled(mine.rung) for other in before):
            return None
        others = [m.score for other in before if (m := other.at(mine.rung))]
        if not others:
            return Decision("promoted", f"{mine.value:.4g}, the first at {mine.nimg / 1000:g} kimg")
        cutoff = float(np.percentile(others, 100 / self.eta))
        place = ordinal(1 + sum(score < mine.score for score in others))
        why = f"{mine.value:.4g}, {place} of the first {len(others) + 1} at {mine.nimg / 1000:g} kimg"
        if mine.score > cutoff:
            return Decision("stopped", f"stopped early by ASHA: {why}, not in the best 1/{self.eta}")
        return Decision("promoted", why)


class Median(Rule):
    """The median stopping rule (Golovin et al. 2017, Google Vizier), trials taken in the order of their numbers.

    Every `every` images a trial whose best is worse than the median of the others' running averages ends.
    """

    keeps_state = False

    def __init__(self, every: int) -> None:
        self.every = every

    def marks(self, number: int, total: int) -> tuple[int, ...]:
        return tuple(range(self.every, total, self.every))

    def decide(self, members: Sequence[Member], member: Member, planned: int) -> Decision | None:
        mine = member.undecided
        assert mine is not None
        assert mine.rung is not None
        rung, before = mine.rung, members[: member.number]
        if not all(other.settled(rung) for other in before):
            return None
        averages = [
            statistics.fmean(m.score for m in other.measured if m.rung is not None and m.rung <= rung)
            for other in before
            if other.at(rung)
        ]
        at = f"at {mine.nimg / 1000:g} kimg"
        if len(averages) < MIN_OTHERS:
            return Decision("promoted", f"{mine.value:.4g} {at}; {len(averages)} others are too few for a median")
        best, middle = min(m.score for m in member.measured), statistics.median(averages)
        shown = f"best {abs(best):.4g} {at}, the median of {len(averages)} others is {abs(middle):.4g}"
        if best > middle:
            return Decision("stopped", f"stopped early by the median rule: {shown}")
        return Decision("promoted", shown)


class Hyperband(Rule):
    """Hyperband (Li et al. 2018): brackets of successive halving that begin with less and less selection.

    With s_max = floor(log_eta(R / grace)), bracket s begins ceil((s_max + 1) / (s + 1) * eta^s) trials with R / eta^s images
    each, and 1 / eta of them go on at every rung. Brackets s_max, ..., 0 are filled in the order of trial numbers, again from
    the first when all are full; a last one that gets fewer trials halves those it has. `batches`: trials of the search and of
    each of its extensions, which begin with a bracket of their own.
    """

    keeps_state = True

    def __init__(self, grace: int, eta: int, total: int, batches: Sequence[int]) -> None:
        self.eta, self.total, self.batches = eta, total, batches
        self.s_max = max(0, math.floor(math.log(total / grace, eta) + 1e-9))

    def size(self, s: int) -> int:
        """Trials that bracket `s` begins with when it is full."""
        return math.ceil((self.s_max + 1) * int(self.eta**s) / (s + 1))

    def bracket(self, number: int) -> tuple[int, range]:
        """The bracket s of trial `number`, and the numbers of the trials in it."""
        first = 0
        for count in self.batches:
            end, s = first + count, self.s_max
            while first < end:
                group = range(first, min(end, first + self.size(s)))
                if number in group:
                    return s, group
                first, s = group.stop, s - 1 if s else self.s_max
        raise AssertionError(f"trial {number} is beyond the search")

    def marks(self, number: int, total: int) -> tuple[int, ...]:
        s, _ = self.bracket(number)
        return tuple(max(1, round(self.total / self.eta**k)) for k in range(s, 0, -1))

    def decide(self, members: Sequence[Member], member: Member, planned: int) -> Decision | None:
        mine = member.undecided
        assert mine is not None
        assert mine.rung is not None
        s, numbers = self.bracket(member.number)
        group = [other for other in members if other.number in numbers]
        if len(group) < len(range(numbers.start, min(numbers.stop, planned))):
            return None
        if not all(other.settled(mine.rung) for other in group):
            return None
        ranked = sorted((m.score, other.number) for other in group if (m := other.at(mine.rung)))
        keep = max(1, len(ranked) // self.eta)
        place = 1 + ranked.index((mine.score, member.number))
        why = f"{mine.value:.4g}, {ordinal(place)} of {len(ranked)} at {mine.nimg / 1000:g} kimg in bracket {s}"
        if place > keep:
            return Decision("stopped", f"stopped early by Hyperband: {why}, the best {keep} go on")
        return Decision("promoted", why)

    def beside(self, members: Sequence[Member], member: Member, nimg: int, trials: int) -> int | None:
        """In a search of one bracket: those that go on. Beside others anything may be under way."""
        _, numbers = self.bracket(member.number)
        rung = member.rung_of(nimg)
        if len(numbers) < trials or rung is None:
            return None
        there = [(other, m.nimg) for other in members if (m := other.at(rung))]
        return sum(other.decided[at].verdict == "promoted" for other, at in there if at in other.decided) or None
