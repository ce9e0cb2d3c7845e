"""Each benchmark in its smallest form: it runs, and its result has the structure that README.md and `--json` promise."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.bench import (
    chaos,
    classic,
    cli,
    common,
    first_step,
    loop,
    methods,
    ray_overhead,
    recommend,
    store_sharing,
    store_speed,
    styles,
    transfer,
)
from tests.bench.common import Result, Target
from tests.bench.methods_page import page
from tlgan.models import build_pair


def check(result: Result, runs: list[str]) -> None:
    """What all results have in common."""
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {"bench", "quick", "host", "rows", "targets", "passed", "notes"} <= document.keys()
    assert {"cpu", "cores", "torch", "date", "load"} <= document["host"].keys()
    assert [next(iter(row.values())) for row in document["rows"]] == runs
    for target in result.targets:
        assert math.isfinite(target.measured)
        assert target.measured >= 0
    text = result.to_text()
    assert all(run in text for run in runs)


def test_ratios_are_taken_pair_by_pair() -> None:
    assert common.ratio([2.0, 30.0, 400.0], [1.0, 10.0, 100.0]) == 3.0


def test_runs_alternate_and_the_order_turns() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: float(len(order.append(name) or order)) for name in "ab"}
    assert common.alternate(runs, 3) == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}
    assert order == list("abbaab")


def test_an_idle_machine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.9, 0.5, 0.05])
    monkeypatch.setattr(common, "_used_share", lambda seconds: next(shares))
    assert common.wait_for_quiet(60)
    assert not list(shares)
    assert common.wait_for_quiet(0)


def test_own_work_shows_as_used_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        assert common._used_share(0.5) > 0.5 / (os.cpu_count() or 1)
        busy.kill()


@pytest.mark.parametrize(("sense", "passes"), [(">=", [1, 2]), ("<=", [0, 1]), ("<", [0])])
def test_a_target_is_met_from_its_bound_on(sense: str, passes: list[int]) -> None:
    assert [value for value in (0, 1, 2) if Target("t", sense, 1, value).passed] == passes


def test_a_missed_target_is_an_exit_code_unless_quick(capsys: pytest.CaptureFixture[str]) -> None:
    missed = [Target("speed", ">=", 2.0, 1.0)]
    assert common.show(Result("b", False, [], missed), as_json=False) == 1
    assert "MISSED" in capsys.readouterr().out
    assert common.show(Result("b", True, [], missed), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_table_aligns_numbers_to_the_right() -> None:
    lines = common.table([{"run": "a", "n": 1}, {"run": "longer", "n": 123456}]).splitlines()
    assert lines == ["run          n", "------  ------", "a            1", "longer  123456"]


def test_cli() -> None:
    check(cli.measure(quick=True), ["tlgan --help", "tlgan validate, ten mistakes"])


def test_styles() -> None:
    size = styles.Setting(threads=1, steps=2, rounds=1, batch=4, width=4, max_width=8)
    result = styles.measure(quick=True, setting=size)
    check(result, [styles.OURS, styles.BY_HAND])


@pytest.mark.minutes
def test_loop() -> None:
    size = loop.Setting(threads=1, steps=5, warmup=2, rounds=1, batch=8, width=4, limit=64)
    result = loop.measure(quick=True, setting=size)
    check(result, [loop.OURS, loop.CLASSIC, loop.PRELOADED])
    assert [target.bound for target in result.targets] == [1.3]


def test_the_yardstick_has_our_networks() -> None:
    recipe = loop.recipe_of(loop.Setting(width=4))
    G, D = build_pair(recipe.model, 1, seed=0)
    theirs_g, theirs_d = classic.networks(G, D)
    assert {type(layer).__module__.partition(".")[0] for layer in [*theirs_g, *theirs_d]} == {"torch"}
    z = torch.randn(3, G.latent_dim)
    images = theirs_g(z[:, :, None, None])
    torch.testing.assert_close(images, G(z))
    torch.testing.assert_close(theirs_d.eval()(images).view(-1), D.eval()(images))


@pytest.mark.minutes
def test_profile_shares_sum_to_one() -> None:
    shares = loop.profile(loop.Setting(batch=8, width=8, limit=64), steps=2)
    assert sum(shares.values()) == pytest.approx(1)
    assert {"convolutions, forward", "convolutions, backward", "Adam"} <= shares.keys()


def test_store_sharing() -> None:
    """The smallest pair: a third of each copy is G, and frozen blocks are the base's."""
    size = store_sharing.Setting(resolution=32, width=4, latent_dim=8, trials=4)
    result = store_sharing.measure(quick=True, setting=size)
    check(result, [store_sharing.DEPTHS, store_sharing.BOTH, store_sharing.METHODS])
    assert [target.bound for target in result.targets] == [0.6] * 3
    assert all(target.measured < 1 for target in result.targets)


@pytest.mark.minutes
@pytest.mark.ray
def test_ray_overhead() -> None:
    size = ray_overhead.Setting(kimg=0.4, rounds=1, batch=8, width=4, limit=64)
    result = ray_overhead.measure(quick=True, setting=size)
    check(result, [ray_overhead.TORCHRUN, ray_overhead.RAY])
    assert [target.bound for target in result.targets] == [0.97]


SMALLEST = transfer.Setting(
    seeds=(0, 1), samples=64, pretrain_kimg=0.128, kimg=0.128, trials=2, width=4, classifier_kimg=0.256, glyphs=200
)


@pytest.mark.minutes
def test_transfer_without_the_search(tmp_path: Path) -> None:
    methods = (transfer.SCRATCH, transfer.FINETUNED)
    url = f"file://{tmp_path / 'store'}"
    result = transfer.measure(quick=True, store=url, setting=SMALLEST, methods=methods)
    check(result, list(methods))
    assert result.targets == []
    assert {"mean", "std", "seed 0", "seed 1", "share of scratch"} <= result.rows[0].keys()
    assert result.rows[0]["share of scratch"] == 1.0
    again = transfer.measure(quick=True, store=url, setting=SMALLEST, methods=methods)
    assert again.rows == result.rows


@pytest.mark.minutes
@pytest.mark.ray
def test_transfer_with_the_search(tmp_path: Path) -> None:
    result = transfer.measure(quick=True, store=f"file://{tmp_path / 'store'}", setting=SMALLEST)
    check(result, [transfer.SCRATCH, transfer.FINETUNED, transfer.SWEPT])
    assert [target.bound for target in result.targets] == [0.5]


@pytest.mark.minutes
def test_recommend(tmp_path: Path) -> None:
    """Two sources, three targets: every pair is trained, every choice is scored against the pairs' results."""
    size = recommend.Setting(
        features="digits", sources=("digits", "flower"), targets=("digits", "flower", "temple"), seeds=(0,),
        pretrain_kimg=0.2, kimg=0.1,
        images=40, width=4, samples=64, classifier_kimg=0.256, processes=0,
    )  # fmt: skip
    result = recommend.measure(quick=True, store=f"file://{tmp_path / 'store'}", setting=size)
    check(result, ["digits", "flower", "temple"])
    assert [row["sources"] for row in result.rows] == [1, 1, 2]
    assert {row["first choice"] for row in result.rows} <= {"digits", "flower"}


METHODS = methods.Setting(
    features="digits", sources=("digits",), targets=("temple",), seeds=(0, 1), methods=("finetune", "scale_shift"),
    pretrain_kimg=0.2, kimg=0.128, images=40, width=4, samples=64, classifier_kimg=0.256, trials=0, processes=0,
)  # fmt: skip


@pytest.mark.minutes
def test_methods(tmp_path: Path) -> None:
    """Scratch and two methods, in an order by KID; the page says where each stands."""
    result, cells = methods.measure(quick=True, store=f"file://{tmp_path / 'store'}", setting=METHODS)
    check(result, ["temple"] * 3)
    assert {cell.method for cell in cells} == {methods.SCRATCH, methods.PLAIN, "scale_shift"}
    assert [cell.mean for cell in cells] == sorted(cell.mean for cell in cells)
    assert all(len(cell.kid) == len(cell.recall) == 2 for cell in cells)
    lines = page(result, cells).splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| **scratch")] == ["| **scratch**"]
    assert sum("scale_shift" in line and "±" in line for line in lines) == 1


@pytest.mark.minutes
@pytest.mark.ray
def test_methods_with_the_search(tmp_path: Path) -> None:
    size = replace(METHODS, trials=2, seeds=(0,))
    result, _ = methods.measure(quick=True, store=f"file://{tmp_path / 'store'}", setting=size)
    assert {row["method"] for row in result.rows} >= {methods.SWEPT}
    assert len(result.targets) == 2


def test_choices_are_scored_against_every_source() -> None:
    kids = {("a", "t"): 0.1, ("b", "t"): 0.2, ("c", "t"): 0.6, ("a", "u"): 0.5, ("b", "u"): 0.4, ("c", "u"): 0.3}
    found = recommend.score(kids, {("t", 0): ["a", "b", "c"], ("u", 0): ["a", "b", "c"]})
    assert (found["first"], found["three"]) == (0.5, 1.0)
    assert found["random"] == pytest.approx(1 / 3)
    assert found["rho"] == pytest.approx(0.0)
    assert found["excess"] == pytest.approx(((0 + 0.2) / 2) / ((0.2 + 0.1) / 2))


@pytest.mark.minutes
def test_store_speed() -> None:
    result = store_speed.measure(quick=True, names="moto")
    json.dumps(result.to_json(), allow_nan=False)
    assert len(result.rows) == 11
    counted = {target.what.partition(": ")[2]: target for target in result.targets}
    assert counted["blob bytes of a re-push"].measured == 0
    assert 0 < counted["requests of a warm pull"].measured <= 3
    assert counted["parts that a killed push sends again"].passed
    assert 20 < counted["peak MiB of a process"].measured < 200


@pytest.mark.minutes
def test_chaos() -> None:
    result = chaos.measure(quick=True)
    assert [(row["job"], row["blow"], row["fell"], row["unlike"]) for row in result.rows] == [
        ("pretrain", "driver", 1, 0)
    ]
    assert all(target.passed for target in result.targets)


@pytest.mark.minutes
def test_first_step() -> None:
    check(first_step.measure(quick=True), [first_step.BARE, first_step.OURS])
