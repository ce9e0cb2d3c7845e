"""The ledger: what may be in it, who may write it; budgets, lost workers, trials trained again, extensions."""

from __future__ import annotations

import random
from typing import Any

import pytest
from simulated import Memory, Simulation, sweep

from cluster.search.build import director_of
from cluster.search.director import Director
from cluster.search.ledger import Ledger, decisions
from cluster.sections import RetrySpec
from tlgan.errors import BackendError, Conflict, IntegrityError


@pytest.fixture
def store() -> Any:
    return Memory(random.Random(0))


def test_it_waits_for_a_store_that_is_away(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    away, create = [BackendError("503"), BackendError("503")], store.put_if_absent

    def lost(key: str, data: bytes) -> bool:
        made = create(key, data)
        if away:
            raise away.pop()
        return bool(made)

    monkeypatch.setattr(store, "put_if_absent", lost)
    monkeypatch.setattr("cluster.patience.FIRST_PAUSE", 0.01)
    Ledger(store, "s-1").append({"type": "suggested", "trial": "000"})
    assert not away
    assert [e["trial"] for e in Ledger(store, "s-1")] == ["000"], "a reply that was lost is no other writer"


def test_entries_come_back_in_order_and_two_writers_do_not_mix(store: Any) -> None:
    ledger = Ledger(store, "s-1")
    ledger.append({"type": "suggested", "trial": "000"}, {"type": "ended", "trial": "000"})
    other = Ledger(store, "s-1")
    ledger.append({"type": "suggested", "trial": "001"})
    assert [e["trial"] for e in Ledger(store, "s-1")] == ["000", "000", "001"]
    with pytest.raises(Conflict, match="another attempt"):
        other.append({"type": "suggested", "trial": "002"})
    assert len(Ledger(store, "s-1").entries) == 3


def test_a_write_that_is_repeated_is_none(store: Any) -> None:
    """The answer to a put may be lost; boto3 asks again, and the key exists."""
    entry = {"type": "suggested", "trial": "000"}
    before = Ledger(store, "s-1")
    Ledger(store, "s-1").append(entry)
    before.append(entry)
    assert Ledger(store, "s-1").entries == [entry]


def test_a_gap_is_damage(store: Any) -> None:
    ledger = Ledger(store, "s-1")
    for number in range(3):
        ledger.append({"type": "suggested", "trial": f"{number:03d}"})
    del store.objects["runs/s-1/ledger/00000001.jsonl"]
    with pytest.raises(IntegrityError, match="expected 00000001"):
        Ledger(store, "s-1")


def test_who_may_not_write_does_not(store: Any) -> None:
    def shut() -> None:
        raise Conflict("taken over")

    with pytest.raises(Conflict, match="taken over"):
        Ledger(store, "s-1", shut).append({"type": "suggested"})
    assert not store.objects


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def begun(director: Director) -> str:
    turn = director.next_turn()
    assert turn
    director.begun(turn.trial)
    return turn.trial


@pytest.mark.parametrize(
    ("budget", "seconds", "words"),
    [
        ({"hours": 1}, 3600, "1 hour"),
        ({"core_hours": 6}, 3600, "6 core-hours"),
        ({"gpu_hours": 1}, 3600, "1 GPU-hour"),
    ],
)
def test_a_budget_ends_the_search_for_good(store: Any, budget: Any, seconds: float, words: str) -> None:
    """Two trials at a time of 3 cores and half a GPU each: an hour is 6 core-hours and 1 GPU-hour."""
    job = sweep({"trials": 9, "parallel": 2, "budget": budget}, {"scheduler": "asha", "grace_kimg": 9})
    base = job.base.model_copy(
        update={"resources": job.base.resources.model_copy(update={"cpus_per_worker": 3, "gpus_per_worker": 0.5})}
    )
    job, clock = job.model_copy(update={"base": base}), Clock()
    director = director_of(job, Ledger(store, "s-1"), clock)
    first, second = begun(director), begun(director)
    clock.now = seconds / 2
    director.measured(first, 9000, 0.5)
    assert [a.do for a in director.answers()] == ["go"]

    clock.now = 0.0  # killed, and taken up again: what was spent counts
    director = director_of(job, Ledger(store, "s-1"), clock)
    assert [begun(director), begun(director)] == [first, second]
    clock.now = seconds / 2 - 1
    director.measured(first, 9000, 0.5)
    assert [a.do for a in director.answers()] == ["go"]
    clock.now = seconds / 2 + 1
    director.measured(second, 9000, 0.4)
    assert [(a.trial, a.do) for a in director.answers()] == [(second, "stop")]
    assert director.next_turn() is None
    for trial in (first, second):
        director.ended(trial)
    assert director.over
    assert [(m.state, m.reason) for m in director.members] == [("stopped", f"the budget of {words} is used up")] * 2
    assert director_of(job, Ledger(store, "s-1"), Clock()).over


@pytest.mark.parametrize("crashes", [0, 2, 3])
def test_a_lost_worker_is_replaced_as_often_as_the_base_says(store: Any, crashes: int) -> None:
    job = sweep({"trials": 1})
    base = job.base.model_copy(update={"retry": RetrySpec(crashes=crashes)})
    director = director_of(job.model_copy(update={"base": base}), Ledger(store, "s-1"))
    for _ in range(crashes):
        director.ended(begun(director), "its worker died", lost=True)
        assert not director.over
    director.ended(begun(director), "its worker died", lost=True)
    assert director.over
    assert director.members[0].state == "failed"


def test_what_was_decided_stands_when_trials_are_trained_again() -> None:
    search = {"trials": 12, "parallel": 3}
    for early in ({"scheduler": "asha", "grace_kimg": 1}, {"scheduler": "hyperband", "grace_kimg": 1}):
        job = sweep(search, early)
        simulation = Simulation(job, 1, fails={"002", "005"})
        assert simulation.run()
        before = [e for e in decisions(simulation.entries()) if e["type"] != "ended"]
        stopped = next(e["trial"] for e in before if e["type"] == "stopped")
        simulation.fails = set()
        ledger = Ledger(simulation.store, "s-1")
        ledger.append(*({"type": "again", "trial": trial, "why": "asked"} for trial in ("002", "005", stopped)))
        director = simulation.run()
        assert director
        after = decisions(simulation.entries())
        assert [e for e in before if e not in after] == []
        assert director.member(stopped).state == "stopped"
        assert all(director.member(trial).measured for trial in ("002", "005"))
        assert all(m.over for m in director.members)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_an_extension_changes_nothing_that_was_decided(scheduler: str) -> None:
    early = {"scheduler": scheduler, "grace_kimg": 1}
    simulation = Simulation(sweep({"trials": 6, "parallel": 2}, early), 1)
    assert simulation.run()
    before = decisions(simulation.entries())
    Ledger(simulation.store, "s-1").append({"type": "extended", "trials": 15, "why": "asked"})
    director = simulation.run()
    assert director
    assert len(director.members) == 15
    after = decisions(simulation.entries())
    assert [e for e in before if e not in after] == []
    if scheduler == "asha":
        whole = Simulation(sweep({"trials": 15, "parallel": 2}, early), 2)
        assert whole.run()
        assert decisions(whole.entries()) == [e for e in after if e["type"] != "extended"]
