"""Guards: what they end, when, what is left as evidence; that they go on where they were after a resume."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_gan import new_learner, recipe

from cluster.gates import Gate
from tlgan.errors import Collapsed, RunFailed, SpecError
from tlgan.guards import Guards, check_finite, weight_norms
from tlgan.metrics.protocol import MetricValue

RECALL = Gate("recall", ">=", 0.1)


def scripted(*values: float):
    """An evaluator that finds these recalls, one after another."""
    left = list(values)
    return lambda G_ema, world, D: [MetricValue("recall", left.pop(0))]


def test_a_bound_holds_from_after_on_and_must_be_missed_during() -> None:
    guards = Guards([RECALL], after=10, during=20)
    guards.check_metrics(5, {"recall": 0.0})
    guards.check_metrics(10, {"recall": 0.0})
    guards.check_metrics(20, {"recall": 0.2})  # kept in between: it starts anew
    guards.check_metrics(30, {"recall": 0.0})
    guards.check_metrics(49, {"recall": 0.0})
    with pytest.raises(
        Collapsed, match=r"recall is 0 at 0\.05 kimg, the guard asks for recall >= 0\.1 since 0\.03 kimg"
    ):
        guards.check_metrics(50, {"recall": 0.0})


def test_nan_misses_every_bound() -> None:
    with pytest.raises(Collapsed, match="recall is nan"):
        Guards([RECALL]).check_metrics(1, {"recall": math.nan})


def test_the_state_is_all_there_is_to_remember() -> None:
    first, second = Guards([RECALL], during=20), Guards([RECALL], during=20)
    first.check_metrics(10, {"recall": 0.0})
    second.state = dict(first.state)
    with pytest.raises(Collapsed):
        second.check_metrics(30, {"recall": 0.0})


def test_a_bound_on_a_statistic_that_is_not_reported_is_a_mistake() -> None:
    guards = Guards(statistics=[Gate("ada_p", "<", 0.9)], after=10)
    guards.check_statistics(5, {"loss_d": 1.0})
    with pytest.raises(SpecError, match=r"reports no ada_p; it reports loss_d, logits_real"):
        guards.check_statistics(10, {"loss_d": 1.0, "logits_real": 0.0})


def test_a_weight_that_is_not_finite_is_seen_in_any_network() -> None:
    for which in ("G", "D", "G_ema"):
        networks = new_learner(recipe()).networks
        means = {name: value.item() for name, value in weight_norms(networks).items()}
        assert check_finite(8, {"loss_d": 1.0, **means}) == {"loss_d": 1.0}
        with torch.no_grad():
            list(networks[which].parameters())[-1][0] = math.inf
        means = {name: value.item() for name, value in weight_norms(networks).items()}
        with pytest.raises(RunFailed, match=f"weights of {which} is not finite at 0.008 kimg"):
            check_finite(8, means)


def test_a_collapse_ends_the_training_with_a_picture(train) -> None:
    told: list[dict] = []
    with pytest.raises(Collapsed):
        train(recipe(), 32, evaluator=scripted(0.5, 0.05), guards=Guards([RECALL]), evaluate_at=(8, 16), events=told)
    assert [e["nimg"] for e in told if e["type"] == "metric"] == [8, 16]
    assert [e["type"] for e in told[-2:]] == ["grid", "guard"]
    assert told[-1]["nimg"] == told[-1]["grid"] == told[-2]["nimg"] == 16
    assert told[-1]["reason"].startswith("stopped by a guard: recall is 0.05 at 0.016 kimg")


def test_a_statistic_ends_the_training(train) -> None:
    told: list[dict] = []
    with pytest.raises(Collapsed, match=r"loss_d is .* at 0\.012 kimg, the guard asks for loss_d < 0"):
        train(recipe(), 32, guards=Guards(statistics=[Gate("loss_d", "<", 0.0)], after=12), tick_every=4, events=told)
    assert [e["nimg"] for e in told if e["type"] == "guard"] == [12]


def test_divergence_leaves_a_picture_too(train) -> None:
    told: list[dict] = []
    with pytest.raises(RunFailed, match="diverged"):
        train(recipe(lr_g=1e30, lr_d=1e30), 32, tick_every=4, events=told)
    assert [e["type"] for e in told[-2:]] == ["grid", "guard"]


def test_guards_do_not_change_what_is_trained(train) -> None:
    plain = train(recipe(), 16, "plain")
    guarded = train(recipe(), 16, "guarded", guards=Guards(statistics=[Gate("loss_d", ">", -1e9)]))
    assert all(torch.equal(value, guarded.state()[name]) for name, value in plain.state().items())


def test_a_resumed_training_ends_where_the_other_does(train) -> None:
    def guards() -> Guards:
        return Guards([RECALL], during=12)

    plan = {"evaluate_at": (8, 12, 16, 20, 24), "checkpoint_every": 4, "tick_every": 4}
    ends = []
    for stop_at in (None, 12):
        told: list[dict] = []
        evaluator = scripted(0.5, 0.0, 0.0, 0.0, 0.0)
        if stop_at:
            train(recipe(), 32, "b", evaluator=evaluator, guards=guards(), stop_at=stop_at, **plan)
        with pytest.raises(Collapsed):
            train(recipe(), 32, "b" if stop_at else "a", evaluator=evaluator, guards=guards(), events=told, **plan)
        ends.append([(e["nimg"], e["reason"]) for e in told if e["type"] == "guard"])
    assert ends[0] == ends[1]
    assert ends[0][0][0] == 24
