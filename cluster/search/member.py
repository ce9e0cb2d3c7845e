"""A trial as the search sees it: its values, what was measured, what was decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Verdict = Literal["promoted", "stopped", "copied"]


class Measured(NamedTuple):
    """`rung`: index of the mark it belongs to, None where nothing is decided. `score`: lower is better."""

    nimg: int
    rung: int | None
    value: float
    score: float


class Decision(NamedTuple):
    """What becomes of a trial after a measurement. `source` and `params`: whose state it goes on from, with which values."""

    verdict: Verdict
    why: str
    source: str | None = None
    params: dict[str, Any] | None = None


@dataclass
class Member:
    """`marks`: images after which the trial is measured, below its `total`."""

    number: int
    name: str
    params: dict[str, Any]
    total: int
    marks: tuple[int, ...]
    measured: list[Measured] = field(default_factory=list)
    decided: dict[int, Decision] = field(default_factory=dict)  # by nimg
    state: Literal["open", "succeeded", "stopped", "failed"] = "open"
    reason: str | None = None
    lost: int = 0
    afresh: bool = False

    @property
    def over(self) -> bool:
        return self.state != "open"

    @property
    def last(self) -> Measured | None:
        return self.measured[-1] if self.measured else None

    @property
    def best(self) -> Measured | None:
        return min(self.measured, key=lambda m: (m.score, m.nimg), default=None)

    @property
    def undecided(self) -> Measured | None:
        """The last measurement, when it is at a rung and nothing was decided yet."""
        last = self.last
        return last if last and last.rung is not None and last.nimg not in self.decided else None

    def at(self, rung: int) -> Measured | None:
        """The measurement that counts for `rung`: a step of many images may pass two marks at once."""
        return next((m for m in self.measured if m.rung is not None and m.rung >= rung), None)

    def settled(self, rung: int) -> bool:
        """Whether nothing of it is to come that counts for `rung`."""
        return self.over or len(self.marks) <= rung or self.at(rung) is not None

    def rung_of(self, nimg: int) -> int | None:
        """Index of the largest mark up to `nimg`; None before the first and at the trial's end."""
        passed = sum(mark <= nimg for mark in self.marks)
        return None if nimg >= self.total or not passed else passed - 1

    def params_at(self, nimg: int) -> dict[str, Any]:
        """The values in force while it trained up to `nimg`."""
        changes = [d.params for at, d in sorted(self.decided.items()) if d.params is not None and at < nimg]
        return changes[-1] if changes else self.params

    @property
    def origin(self) -> tuple[str, int] | None:
        """The trial and nimg of the checkpoint that the next turn goes on from, after a decision."""
        last = self.last
        decision = self.decided.get(last.nimg) if last else None
        return (decision.source or self.name, last.nimg) if last and decision else None


def ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
