"""Decisions depend on what was measured, not on when: random timing, random kills, more or fewer workers. No Ray, no training."""

from __future__ import annotations

import random
from typing import Any

import pytest
from simulated import SPACE, Simulation, sweep

from cluster.search.ledger import decisions

ASHA = {"scheduler": "asha", "grace_kimg": 1, "eta": 3}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "random, asha": ({"trials": 30, "parallel": 4}, ASHA),
    "random, median": ({"trials": 20, "parallel": 3}, {"scheduler": "median", "grace_kimg": 3}),
    "random, hyperband": ({"trials": 25, "parallel": 4}, {"scheduler": "hyperband", "grace_kimg": 1, "eta": 3}),
    "tpe": ({"algo": "tpe", "trials": 14, "parallel": 3}, None),
    "tpe, asha": ({"algo": "tpe", "trials": 16, "parallel": 4}, ASHA),
    "pbt, two at a time": ({"algo": "pbt", "trials": 6, "parallel": 2, "pbt": {"every_kimg": 3}}, None),
    "pbt, all at a time": ({"algo": "pbt", "trials": 5, "parallel": 5, "pbt": {"every_kimg": 5}}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_timing_has_no_say(case: str) -> None:
    job = sweep(*CASES[case])
    first = Simulation(job, seed=0)
    assert first.run()
    wanted = decisions(first.entries())
    assert len(wanted) > 2 * job.search.trials - 1
    assert first.most == job.search.parallel, "the workers were used"
    orders = set()
    for seed in range(1, 5):
        other = Simulation(job, seed)
        assert other.run()
        assert decisions(other.entries()) == wanted
        orders.add(str([(e["type"], e.get("trial")) for e in other.entries()]))
    assert len(orders) > 1, "the order in which things happened was not always the same"


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_and_resumed_decides_the_same(case: str) -> None:
    job = sweep(*CASES[case])
    through = Simulation(job, seed=0)
    assert through.run()
    wanted, rng = decisions(through.entries()), random.Random(case)
    for number in range(4):
        killed = Simulation(job, seed=number + 10)
        while killed.run(lifetime=rng.randrange(1, 12)) is None:
            assert killed.attempts < 400
        assert decisions(killed.entries()) == wanted
        assert killed.attempts > 2


def test_fewer_workers_decide_the_same() -> None:
    """But for TPE, which learns from what is over when `parallel` run."""
    for name in ("random, asha", "random, median", "random, hyperband", "pbt, two at a time"):
        search, early = CASES[name]
        made = []
        for parallel in (1, 3):
            simulation = Simulation(sweep({**search, "parallel": parallel}, early), 1)
            assert simulation.run()
            made.append(decisions(simulation.entries()))
        assert made[0] == made[1], name


def test_trials_that_fail_hold_nobody_up() -> None:
    for case in CASES:
        search, early = CASES[case]
        found = []
        for seed in range(2):
            simulation = Simulation(sweep(search, early), seed, fails={"001", "003"})
            director = simulation.run()
            assert director
            assert [m.name for m in director.members if m.state == "failed"] == ["001", "003"]
            assert all(m.over for m in director.members)
            found.append(decisions(simulation.entries()))
        assert found[0] == found[1]


def test_how_many_go_on_beside_each_other_is_known_where_one_bracket_is_all_there_is() -> None:
    """So that they can share what the others leave idle, and train the same after a kill."""
    early = {"scheduler": "hyperband", "grace_kimg": 6, "eta": 2}
    job = sweep({"trials": 4, "parallel": 2}, early)
    through = Simulation(job, 0)
    assert through.run()
    wanted = through.beside
    assert sorted(nimg for _, nimg in wanted) == [0, 0, 0, 0, 6750, 6750, 13500]
    assert all(found == {{0: None, 6750: 2, 13500: 1}[nimg]} for (_, nimg), found in wanted.items())
    rng = random.Random(0)
    for seed in range(1, 8):
        killed = Simulation(job, seed)
        while killed.run(lifetime=rng.randrange(1, 9)) is None:
            assert killed.attempts < 400
        assert all(wanted[stretch] == found for stretch, found in killed.beside.items())
    few = {"algo": "grid", "trials": 8, "parallel": 2}, early, {"train.lr_g": {"choice": [1e-4, 3e-4, 1e-3, 3e-3]}}
    for search, rule, space in (
        ({"trials": 5, "parallel": 2}, early, SPACE),
        ({"trials": 4, "parallel": 2}, ASHA, SPACE),
        few,
    ):
        for seed in range(8):
            other = Simulation(sweep(search, rule, space=space), seed)
            assert other.run()
            assert set().union(*other.beside.values()) == {None}
