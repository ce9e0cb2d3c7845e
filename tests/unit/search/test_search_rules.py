"""The rules against their papers: bracket sizes, quantiles, medians; and what population based training draws."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.search.member import Decision, Measured, Member, ordinal
from cluster.search.population import Population, step
from cluster.search.rules import Asha, Hyperband, Median, Rule
from cluster.space import Space
from cluster.tuner import row_of


def members(rule: Rule, curves: list[list[float]], total: int = 100_000) -> list[Member]:
    """Members with scores at their first marks; what was measured before the last was promoted."""
    found = []
    for number, scores in enumerate(curves):
        member = Member(number, f"{number:03d}", {}, total, rule.marks(number, total))
        for rung, score in enumerate(scores):
            if member.last:
                member.decided[member.last.nimg] = Decision("promoted", "")
            member.measured.append(Measured(member.marks[rung], rung, score, score))
        found.append(member)
    return found


def test_hyperbands_brackets_are_those_of_the_paper() -> None:
    """Li et al. 2018, table 1: R = 81, eta = 3."""
    rule = Hyperband(1000, 3, 81_000, [143])
    assert [rule.size(s) for s in (4, 3, 2, 1, 0)] == [81, 34, 15, 8, 5]
    firsts = {rule.bracket(n)[0]: rule.marks(n, 81_000) for n in range(143)}
    assert firsts[4] == (1000, 3000, 9000, 27_000)
    assert firsts[3] == (3000, 9000, 27_000)
    assert firsts[0] == ()
    counts = [sum(rule.bracket(n)[0] == s for n in range(143)) for s in (4, 3, 2, 1, 0)]
    assert counts == [81, 34, 15, 8, 5]


def test_an_extension_of_hyperband_begins_with_a_bracket_of_its_own() -> None:
    rule = Hyperband(1000, 2, 4000, [5, 4])
    assert [rule.bracket(n) for n in (0, 3, 4)] == [(2, range(4))] * 2 + [(1, range(4, 5))]
    assert rule.bracket(5) == (2, range(5, 9))


def test_hyperband_waits_for_the_whole_rung_and_keeps_the_best_share() -> None:
    rule = Hyperband(1000, 2, 4000, [4])
    four = members(rule, [[0.4], [0.1], [0.3], []], 4000)
    assert rule.decide(four, four[1], 4) is None
    four[3].measured.append(Measured(1000, 0, 0.2, 0.2))
    verdicts = [rule.decide(four, member, 4) for member in four]
    assert [v.verdict for v in verdicts if v] == ["stopped", "promoted", "stopped", "promoted"]
    four[3].measured.clear()
    four[3].state = "failed"
    verdicts = [rule.decide(four, member, 4) for member in four[:3]]
    assert [v.verdict for v in verdicts if v] == ["stopped", "promoted", "stopped"], "1 of 3"


def test_asha_holds_a_trial_against_the_quantile_of_those_before_it() -> None:
    rule, rng = Asha(1000, 3), np.random.default_rng(0)
    scores = rng.random(20).tolist()
    trials = members(rule, [[s] for s in scores])
    for number, member in enumerate(trials):
        decision = rule.decide(trials, member, 20)
        assert decision
        worse = number > 0 and scores[number] > np.quantile(scores[:number], 1 / 3)
        assert decision.verdict == ("stopped" if worse else "promoted")
    trials[3].measured.clear()
    assert rule.decide(trials, trials[4], 20) is None, "it began before, and is under way"
    assert rule.decide(trials, trials[2], 20) is not None


def test_a_trial_with_a_smaller_budget_holds_nobody_up() -> None:
    rule = Asha(1000, 2)
    trials = members(rule, [[], [0.5, 0.4]], 8000)
    trials[0].total, trials[0].marks = 1500, rule.marks(0, 1500)
    assert rule.decide(trials, trials[1], 2) is not None


def test_the_median_rule_is_that_of_vizier() -> None:
    """The best so far against the median of the running averages of the others up to the same step."""
    rule = Median(1000)
    trials = members(rule, [[0.9, 0.5], [0.6, 0.6], [0.8, 0.2], [0.7, 0.62], [0.9, 0.58]])
    decided = [rule.decide(trials, member, 5) for member in trials]
    assert [d.verdict for d in decided if d] == ["promoted", "promoted", "promoted", "stopped", "promoted"]
    assert np.median([0.7, 0.6, 0.5]) < 0.62
    assert np.median([0.7, 0.6, 0.5, 0.66]) > 0.58


def test_a_step_over_two_marks_counts_for_both() -> None:
    member = Member(0, "000", {}, 5000, (100, 200, 400))
    member.measured.append(Measured(256, member.rung_of(256), 0.5, 0.5))
    assert member.measured[0].rung == 1
    assert member.at(0) == member.at(1) == member.measured[0]
    assert (member.settled(1), member.settled(2)) == (True, False)
    assert (member.rung_of(99), member.rung_of(5000)) == (None, None)


SPACE = {
    "train.lr_g": Space.model_validate({"log_uniform": [1e-4, 1e-3]}),
    "transfer.freeze_d": Space.model_validate({"int": [0, 3]}),
    "loss.r1": Space.model_validate({"choice": [0.0, 0.5, 1.0]}),
}


def test_exploring_stays_near_and_inside() -> None:
    rule = Population(SPACE, 1000, 0.25, 0.0, seed=0)
    params = {"train.lr_g": 5e-4, "transfer.freeze_d": 3, "loss.r1": 0.0}
    found = [rule.explore(params, np.random.default_rng(seed)) for seed in range(40)]
    assert {p["train.lr_g"] for p in found} == {5e-4 * 0.8, 5e-4 * 1.2}
    assert {p["transfer.freeze_d"] for p in found} == {2, 3}
    assert {p["loss.r1"] for p in found} == {0.0, 0.5}
    assert step(SPACE["train.lr_g"], 1e-3, np.random.default_rng(1)) in (1e-3, 1e-3 * 0.8)
    anew = Population(SPACE, 1000, 0.25, 1.0, seed=0)
    assert len({anew.explore(params, np.random.default_rng(seed))["train.lr_g"] for seed in range(10)}) == 10


def test_the_last_copy_the_first() -> None:
    rule = Population(SPACE, 1000, 0.25, 0.25, seed=3)
    trials = members(rule, [[s] for s in (0.5, 0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.6)], 3000)
    for member in trials:
        member.params = {"train.lr_g": 5e-4, "transfer.freeze_d": 1, "loss.r1": 0.5}
    assert rule.decide(trials[:-1], trials[0], 8) is None, "the population is not complete"
    decided = {m.name: rule.decide(trials, m, 8) for m in trials}
    assert {name for name, d in decided.items() if d and d.verdict == "copied"} == {"002", "004"}
    assert all(d and (d.source in ("001", "003")) == (d.verdict == "copied") for d in decided.values())


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_ordinals(number: int, word: str) -> None:
    assert ordinal(number) == word


def test_a_trial_is_shown_with_the_images_of_its_best() -> None:
    measured = [Measured(128, 0, 0.5, 0.5), Measured(320, None, 0.9, 0.9)]
    row = row_of(Member(0, "000", {}, 320, (128,), measured, state="succeeded"), None)
    assert (row.nimg, row.objective, row.best_nimg) == (320, 0.5, 128)
