"""Conditions of a space: in draws, grids and TPE; what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import Simulation, sweep

from cluster.search import tpe
from cluster.search.build import director_of, suggest_of
from cluster.search.member import Measured, Member
from cluster.search.points import draws, grid, grid_size, sample
from cluster.space import Space, in_order
from tlgan.errors import SpecError

METHODS = {
    "transfer.method": {"choice": ["finetune", "freeze", "scale_shift"]},
    "transfer.freeze_d": {"int": [1, 3], "when": {"transfer.method": ["freeze", "scale_shift"]}},
    "train.lr_g": {"log_uniform": [1e-4, 1e-3]},
}


def spaces(given: dict[str, Any]) -> dict[str, Space]:
    return {path: Space.model_validate(spec) for path, spec in given.items()}


def test_an_idle_field_is_left_out() -> None:
    points = sample(spaces(METHODS), "random", 40, seed=0)
    for point in points:
        assert ("transfer.freeze_d" in point) == (point["transfer.method"] != "finetune")
    free = {path: {k: v for k, v in spec.items() if k != "when"} for path, spec in METHODS.items()}
    assert [p["train.lr_g"] for p in points] == [p["train.lr_g"] for p in sample(spaces(free), "random", 40, seed=0)]


def test_a_grid_has_each_point_once() -> None:
    space = spaces({path: spec for path, spec in METHODS.items() if path != "train.lr_g"})
    points = list(grid(space))
    assert len(points) == grid_size(space) == 1 + 3 + 3
    assert points.count({"transfer.method": "finetune"}) == 1


def test_conditions_of_conditions() -> None:
    space = spaces(
        {
            "a": {"choice": [1, 2], "when": {"b": True}},
            "b": {"choice": [True, False], "when": {"c": "x"}},
            "c": {"choice": ["x", "y"]},
        }
    )
    assert in_order(space) == ["c", "b", "a"]
    assert {tuple(p.items()) for p in grid(space)} == {
        (("a", 1), ("b", True), ("c", "x")),
        (("a", 2), ("b", True), ("c", "x")),
        (("b", False), ("c", "x")),
        (("c", "y"),),
    }


def test_the_base_is_a_point_without_its_idle_fields() -> None:
    base = {"transfer": {"method": "finetune", "freeze_d": 0}, "train": {"lr_g": 2e-4}}
    first = next(draws(spaces(METHODS), 0, base))
    assert first == {"transfer.method": "finetune", "train.lr_g": 2e-4}
    base["transfer"]["method"] = "freeze"
    assert "transfer.freeze_d" in next(draws(spaces(METHODS), 0, base)), "0 can't be drawn: another point comes first"


def done(number: int, point: dict[str, Any], score: float) -> Member:
    member = Member(number, f"{number:03d}", point, 1000, (), [Measured(1000, None, score, score)])
    member.state = "succeeded"
    return member


def test_tpe_goes_where_it_was_good_and_obeys_conditions() -> None:
    space = spaces(METHODS)
    members = [
        done(i, p, abs(p["train.lr_g"] - 9e-4) + (p["transfer.method"] != "freeze"))
        for i, p in enumerate(sample(space, "random", 30, seed=1))
    ]
    found = []
    for _ in range(10):
        point = tpe.suggest(space, members, len(members), 5, None)
        assert point
        assert ("transfer.freeze_d" in point) == (point["transfer.method"] != "finetune")
        found.append(point)
        members.append(
            done(len(members), point, abs(point["train.lr_g"] - 9e-4) + (point["transfer.method"] != "freeze"))
        )
    assert sum(p["transfer.method"] == "freeze" for p in found) >= 7
    assert sum(p["train.lr_g"] > 6e-4 for p in found) >= 7
    assert tpe.suggest(space, members, 30, 5, None) == tpe.suggest(space, members, 30, 5, None)


def test_tpe_does_not_see_those_that_count_as_running() -> None:
    space = spaces(METHODS)
    members = [done(i, p, i / 10) for i, p in enumerate(sample(space, "random", 12, seed=1))]
    before = tpe.suggest(space, members, 9, 0, None)
    for member in members[9:]:
        member.measured[:] = [Measured(1000, None, -5.0, -5.0)]
    assert tpe.suggest(space, members, 9, 0, None) == before
    assert tpe.suggest(space, members, 12, 0, None) != before


def test_tpe_tries_nothing_twice_and_ends_with_the_space() -> None:
    space = spaces({"a": {"choice": [1, 2]}, "b": {"int": [0, 1]}})
    members: list[Member] = []
    while point := tpe.suggest(space, members, len(members), 0, None):
        assert point not in [m.params for m in members]
        members.append(done(len(members), point, 1.0))
    assert len(members) == 4


def test_tpe_waits_for_the_outcomes_it_learns_from() -> None:
    suggest = suggest_of(sweep({"algo": "tpe", "trials": 9, "parallel": 2}))
    members: list[Member] = []
    while len(members) < 3:
        found = suggest(members)
        assert found
        assert found != "later"
        members.append(Member(len(members), f"{len(members):03d}", found[0], 1000, ()))
    assert suggest(members) == "later"
    for member in members[:2]:
        member.measured.append(Measured(1000, None, 0.1, 0.1))
        member.state = "succeeded"
    assert suggest(members) not in (None, "later")


def test_a_search_ends_when_its_space_is_used_up() -> None:
    job = sweep({"trials": 9}, space={"transfer.freeze_d": {"int": [0, 1]}})
    director = director_of(job, Simulation(job, 0).ledger())
    for _ in range(2):
        turn = director.next_turn()
        assert turn
        director.measured(turn.trial, 27_000, 0.5)
        director.ended(turn.trial)
    assert director.next_turn() is None
    assert director.over


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {**METHODS, "transfer.freeze_d": {"int": [1, 3], "when": {"transfer.metod": "freeze"}}}},
         '"transfer.metod" is not another field of the space'),
        ({"space": {**METHODS, "transfer.freeze_d": {"int": [1, 3], "when": {"transfer.method": "ewc?"}}}},
         "transfer.method never is 'ewc?' in this space"),
        ({"space": {"train.lr_g": {"choice": [1e-3], "when": {"train.lr_d": 1e-3}},
                    "train.lr_d": {"choice": [1e-3], "when": {"train.lr_g": 1e-3}}}}, "a circle: train.lr_d, train.lr_g"),
        ({"search": {"algo": "pbt"}}, "train.lr_g"),
        ({"search": {"algo": "pbt", "trials": 1}, "space": {"train.lr_g": {"choice": [1e-3, 1e-4]}}}, "at least 2"),
        ({"search": {"algo": "tpe"}, "early_stop": {"scheduler": "hyperband"}}, "hyperband keeps trials waiting"),
        ({"space": {"train.kimg": {"choice": [1.0, 2.0]}}, "early_stop": {"scheduler": "hyperband"}},
         "hyperband gives out the budget itself"),
        ({"search": {"algo": "pbt"}, "early_stop": {"scheduler": "asha"}, "space": {"train.lr_g": {"choice": [1e-3, 1e-4]}}},
         "pbt stops no trial early"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    search = changes.pop("search", {})
    early = changes.pop("early_stop", None)
    if search == {"algo": "pbt"} and "space" not in changes:
        changes["space"], message = METHODS, "transfer.method can't change while a training is under way"
    with pytest.raises(SpecError) as error:
        sweep(search, early, **changes)
    assert any(message in str(problem) for problem in error.value.problems), error.value
