"""Going on from another training's state: what population based training exchanges between trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import dataset, differing, flat, pair, recipe

from tlgan import checkpoint
from tlgan import train as loop
from tlgan.artifact import save_networks
from tlgan.distributed import World
from tlgan.metrics.protocol import MetricValue
from tlgan.recipe import Recipe

STEP = 4  # images


def evaluator(G_ema: Any, world: World, D: Any) -> list[Any]:
    return []


def go(of: Recipe, where: Path, *, until: int = 20, total: int = 20, adopt: Path | None = None) -> loop.Result:
    """Trains `of` from `where/../parent`; ends at the measurement at `until` steps, with a checkpoint there."""
    parent = where.parent / "parent"
    if not parent.exists():
        G, D = pair(seed=1)
        save_networks(parent, {"G_ema": G, "D": D}, type="gan")
    schedule = loop.Schedule(total * STEP, evaluate_at=(until * STEP,), checkpoint_when_measured=True)
    hooks = loop.Hooks(measured=lambda learner, nimg, values: nimg == until * STEP)
    return loop.train(
        of, dataset(), schedule, where, parent=parent, adopt=adopt, evaluator=evaluator, world=World(), hooks=hooks
    )


def test_a_training_that_ended_at_a_measurement_goes_on_exactly(tmp_path: Path) -> None:
    of = recipe(transfer={"method": "freeze", "freeze_d": 1}, augment={"name": "diffaugment"})
    whole = go(of, tmp_path / "whole")
    first = go(of, tmp_path / "first", until=8)
    assert (first.finished, first.nimg) == (False, 8 * STEP)
    second = go(of, tmp_path / "second", adopt=checkpoint.newest(tmp_path / "first" / "checkpoints"))
    assert second.finished
    assert differing(*(flat(nets(result)) for result in (whole, second))) == []


@pytest.mark.parametrize(("of_giver", "of_taker"), [(0, 2), (2, 0)])
def test_weights_and_moments_are_taken_over_by_name_across_freeze_depths(
    tmp_path: Path, of_giver: int, of_taker: int
) -> None:
    giver = recipe(transfer={"method": "freeze", "freeze_d": of_giver}, lr_d=1e-3)
    taker = recipe(transfer={"method": "freeze", "freeze_d": of_taker}, lr_d=1e-5)
    go(giver, tmp_path / "giver", until=8)
    given = checkpoint.newest(tmp_path / "giver" / "checkpoints")
    result = go(taker, tmp_path / "taker", until=9, adopt=given)
    before, _ = checkpoint.load(given)
    after, _ = checkpoint.load(checkpoint.newest(tmp_path / "taker" / "checkpoints"), taker)
    assert result.nimg == 9 * STEP
    frozen = {name for name, p in result.networks["D"].named_parameters() if not p.requires_grad}
    assert bool(frozen) == bool(of_taker)
    assert all(torch.equal(before["D"][name], after["D"][name]) for name in frozen), "the giver's, and frozen here"
    moments = {key.rpartition("/")[0] for key in after["opt_D"]}
    assert moments == {name for name, p in result.networks["D"].named_parameters() if p.requires_grad}
    steps = {key.rpartition("/")[0]: int(value) for key, value in after["opt_D"].items() if key.endswith("/step")}
    known = {key.rpartition("/")[0] for key in before["opt_D"]}
    assert {steps[name] for name in moments & known} == {9}
    assert {steps[name] for name in moments - known} == ({1} if of_giver else set()), "thawed just now"


def nets(result: loop.Result) -> dict[str, dict[str, torch.Tensor]]:
    return {which: dict(network.state_dict()) for which, network in result.networks.items()}


def test_what_was_measured_is_told_again_when_the_process_died_before_it_told(tmp_path: Path) -> None:
    """The checkpoint was there already: without the word, a search would judge the trial by its next measurement."""
    told: list[tuple[int, list[str]]] = []

    def begin(measured: Any, goes_on: bool) -> loop.Result:
        schedule = loop.Schedule(20 * STEP, evaluate_at=(8 * STEP, 12 * STEP), checkpoint_when_measured=True)
        hooks = loop.Hooks(measured=measured, report=lambda event: None)
        evaluate = scripted(goes_on)
        return loop.train(recipe(), dataset(), schedule, tmp_path, evaluator=evaluate, world=World(), hooks=hooks)

    def scripted(goes_on: bool) -> Any:
        left = iter(["third"] if goes_on else ["first", "second"])
        return lambda *_: [MetricValue("kid", 0.0, {"which": next(left, "last")})]

    def dies(learner: Any, nimg: int, values: list[MetricValue]) -> bool:
        told.append((nimg, [value.protocol["which"] for value in values]))
        if nimg == 12 * STEP and len(told) == 2:
            raise RuntimeError("killed")
        return False

    with pytest.raises(RuntimeError, match="killed"):
        begin(dies, goes_on=False)
    assert begin(dies, goes_on=True).finished
    second = (12 * STEP, ["second"])
    assert told == [(8 * STEP, ["first"]), second, second, (20 * STEP, ["third"])]
