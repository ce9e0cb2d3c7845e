"""The search as a state machine over its ledger: which trial runs next, what becomes of it after each measurement.

**Decisions don't depend on timing.** Point k is a function of the seed and k (or, for TPE, of outcomes that are waited for);
every rule judges a trial against a set of measurements fixed by trial numbers (see `cluster.search.rules`), and waits until
that set is complete. So the decisions are a function of the spec and the measured values alone, and as training is
reproducible, of the spec alone: run through, run on fewer processors, or killed anywhere and resumed, they are the same.
Virtual clocks or replaying the order of arrival would give the same after a kill, but not between two runs.
What does depend on the clock, a budget of hours and a worker that dies, is written down when it happens and stands.

The director knows neither Ray nor torch. A launcher asks for turns, tells what happens in them, and passes answers on:

    next_turn -> begun -> measured ... measured -> ended         answers() after each
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.search.budget import Meter
from cluster.search.ledger import Entry, Ledger
from cluster.search.member import Decision, Measured, Member
from cluster.search.points import Params
from cluster.search.rules import Rule
from cluster.sections import BudgetSpec

Suggest = Callable[[Sequence[Member]], tuple[Params, str] | Literal["later"] | None]
"""The next point and why, from all members there are; "later" until more is known, None when there is no other."""


@dataclass(frozen=True)
class Turn:
    """One stretch of a trial on one worker. `start`: trial and nimg of the checkpoint to go on from; `best`: score so far;
    `beside`: how many trials train at this time, it among them, where that does not depend on timing.
    """

    trial: str
    params: Params
    start: tuple[str, int] | None = None
    best: float | None = None
    beside: int | None = None


@dataclass(frozen=True)
class Answer:
    """To a trial that has told a measurement at `nimg`: go on, stop, leave the worker to another, or take another turn."""

    trial: str
    nimg: int
    do: Literal["go", "stop", "park", "turn"]
    turn: Turn | None = None
    beside: int | None = None  # as in a turn


@dataclass(frozen=True)
class Plan:
    """What a director needs to know of the search. `total_of`: images that a trial with these values trains for."""

    rule: Rule
    suggest: Suggest
    total_of: Callable[[Params], int]
    sign: int  # 1: lower values are better
    parallel: int
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    losses: int = 3  # of its worker, after each of which a trial is given to another


class Director:
    """`ledger` may hold the entries of earlier attempts: the search goes on from there."""

    def __init__(self, plan: Plan, ledger: Ledger, trials: int, meter: Meter) -> None:
        self.plan, self.ledger, self.trials, self.meter = plan, ledger, trials, meter
        self.members: list[Member] = []
        self.exhausted: str | None = None
        self.active: dict[str, Literal["given", "running", "waiting", "leaving"]] = {}
        self._waits_at: dict[str, int] = {}
        self._used_up = False
        for entry in ledger:
            self._apply(entry)
        self._advance()

    # what the launcher does

    def next_turn(self) -> Turn | None:
        """A turn for a free worker; None when there is nothing to do now."""
        self._check_budget()
        if len(self.active) >= self.plan.parallel:
            return None
        member = next(self._runnable(), None) or self._new()
        if member is None:
            return None
        self.active[member.name] = "given"
        return self._turn(member)

    def begun(self, trial: str) -> None:
        if self.active.get(trial) == "given":
            self.active[trial] = "running"
            self.meter.begin(trial)

    def measured(self, trial: str, nimg: int, value: float) -> None:
        """A trial that is run again tells what is known already: the first value counts."""
        self.begun(trial)
        member = self.member(trial)
        rung = member.rung_of(nimg)
        if all(nimg != known.nimg for known in member.measured):
            self._write({"type": "measured", "trial": trial, "nimg": nimg, "value": value})
        if rung is not None:
            self.active[trial] = "waiting"
        self._waits_at[trial] = nimg
        self._advance()

    def ended(self, trial: str, error: str | None = None, *, lost: bool = False) -> None:
        """The turn is over. `lost`: its worker died, and the trial may be given to another."""
        parked = self.active.pop(trial, None) == "leaving"
        self._waits_at.pop(trial, None)
        self.meter.end(trial)
        member = self.member(trial)
        if member.over:
            return
        member.afresh = member.afresh and not parked
        if error is not None and lost and member.lost < self.plan.losses:
            self._write({"type": "lost", "trial": trial, "reason": error})
        elif error is not None:
            self._write({"type": "ended", "trial": trial, "state": "failed", "reason": error})
        elif member.last and member.last.nimg >= member.total:
            self._write({"type": "ended", "trial": trial, "state": "succeeded", "reason": None})
        self._advance()

    def answers(self) -> list[Answer]:
        """To trials that wait; each is given once."""
        self._check_budget()
        found = [answer for trial in self._waiting() if (answer := self._answer(trial))]
        claims = self._claims() - sum(state == "leaving" for state in self.active.values())
        for trial in self._waiting() if self.plan.rule.keeps_state else []:
            if claims > 0:
                claims -= 1
                self.active[trial] = "leaving"
                found.append(Answer(trial, self._waits_at[trial], "park"))
        return found

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not self.active and all(m.over for m in self.members) and not self._may_begin()

    def member(self, trial: str) -> Member:
        return self.members[int(trial)]

    # what is decided

    def _advance(self) -> None:
        """Decides whatever can be decided."""
        progress = True
        while progress:
            progress = False
            for member in self.members:
                if member.over or member.undecided is None:
                    continue
                if decision := self.plan.rule.decide(self.members, member, self.planned):
                    self._decide(member, member.undecided.nimg, decision)
                    progress = True

    def _decide(self, member: Member, nimg: int, decision: Decision) -> None:
        entry: Entry = {"type": decision.verdict, "trial": member.name, "nimg": nimg}
        if decision.source is not None:
            entry |= {"source": decision.source, "params": decision.params}
        self._write({**entry, "why": decision.why})

    @property
    def planned(self) -> int:
        """How many trials there will be, as far as is known."""
        return len(self.members) if self._used_up or self.exhausted else self.trials

    def _check_budget(self) -> None:
        if self.exhausted or self.over or (why := self.meter.beyond(self.plan.budget)) is None:
            return
        entries: list[Entry] = [{"type": "exhausted", "why": why}]
        for member in self.members:
            if not member.over:
                entries.append({"type": "ended", "trial": member.name, "state": "stopped", "reason": why})
        self._write(*entries)

    # who runs

    def _runnable(self) -> Any:
        """Members that no worker has, and that need not wait for a decision, in order."""
        keeps = self.plan.rule.keeps_state
        for member in self.members:
            if not member.over and member.name not in self.active and not (keeps and self._held(member)):
                yield member

    def _held(self, member: Member) -> bool:
        return member.undecided is not None and not member.afresh

    def _may_begin(self) -> bool:
        return not self.exhausted and not self._used_up and len(self.members) < self.trials

    def _new(self) -> Member | None:
        if not self._may_begin():
            return None
        found = self.plan.suggest(self.members)
        if found == "later":
            return None
        if found is None:
            self._used_up = True
            self._advance()
            return next(self._runnable(), None)
        params, why = found
        name = f"{len(self.members):03d}"
        self._write({"type": "suggested", "trial": name, "params": params, "why": why})
        return self.members[-1]

    def _claims(self) -> int:
        """How many turns could begin if trials that wait left their workers."""
        pending = sum(state == "given" for state in self.active.values())
        if len(self.active) < self.plan.parallel:
            return pending
        return (
            pending + sum(1 for _ in self._runnable()) + (self.trials - len(self.members) if self._may_begin() else 0)
        )

    def _turn(self, member: Member) -> Turn:
        best = member.best.value if member.best else None
        start = member.origin if self.plan.rule.keeps_state and not member.afresh else None
        if start is None:
            return Turn(member.name, member.params)
        return Turn(member.name, member.params_at(start[1] + 1), start, best, self._beside(member, start[1]))

    def _beside(self, member: Member, nimg: int) -> int | None:
        return self.plan.rule.beside(self.members, member, nimg, self.trials)

    def _waiting(self) -> list[str]:
        return sorted(trial for trial, state in self.active.items() if state == "waiting")

    def _answer(self, trial: str) -> Answer | None:
        member, nimg = self.member(trial), self._waits_at[trial]
        decision = member.decided.get(nimg)
        if member.over or (decision and decision.verdict == "stopped"):
            self.active[trial] = "leaving"
            if not member.over and decision:  # it was trained again, and what was decided stands
                self._write({"type": "ended", "trial": trial, "state": "stopped", "reason": decision.why})
            return Answer(trial, nimg, "stop")
        if decision is None:
            return None
        self.active[trial] = "running"
        if decision.verdict == "copied":
            turn = Turn(
                trial, member.params_at(nimg + 1), (decision.source or trial, nimg), member.best and member.best.value
            )
            return Answer(trial, nimg, "turn", turn)
        return Answer(trial, nimg, "go", beside=self._beside(member, nimg))

    # what is known

    def _write(self, *entries: Entry) -> None:
        told = [
            {**e, "spent": self.meter.spent()} if e["type"] in ("measured", "ended", "lost") else e for e in entries
        ]
        self.ledger.append(*told)
        for entry in told:
            self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        kind = entry["type"]
        if kind == "suggested":
            total = self.plan.total_of(entry["params"])
            number = len(self.members)
            self.members.append(
                Member(number, entry["trial"], entry["params"], total, self.plan.rule.marks(number, total))
            )
        elif kind == "extended":
            self.trials, self.exhausted, self._used_up = entry["trials"], None, False
        elif kind == "exhausted":
            self.exhausted = entry["why"]
        else:
            self._apply_to(self.member(entry["trial"]), entry)

    def _apply_to(self, member: Member, entry: Entry) -> None:
        kind, nimg = entry["type"], entry.get("nimg", 0)
        if kind == "measured":
            member.measured.append(
                Measured(nimg, member.rung_of(nimg), entry["value"], self.plan.sign * entry["value"])
            )
        elif kind in ("promoted", "stopped", "copied"):
            member.decided[nimg] = Decision(kind, entry["why"], entry.get("source"), entry.get("params"))
            if kind == "stopped":
                member.state, member.reason = "stopped", entry["why"]
        elif kind == "ended":
            member.state, member.reason = entry["state"], entry["reason"]
        elif kind == "lost":
            member.lost += 1
        elif kind == "again":
            member.state, member.reason, member.afresh = "open", None, True
