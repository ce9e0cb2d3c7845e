"""Search spaces: every point must be a valid change of the base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from spec_texts import SWEEP

from cluster.job import SweepJob
from cluster.space import Space
from cluster.specfile import apply_params, check_space, load_spec
from tlgan import registry
from tlgan.recipe import LossSpec, ModelSpec

Mistakes = Callable[..., list[str]]
LINE = "  train.lr_g: {log_uniform: [1e-5, 1e-3]}"


@pytest.mark.parametrize(
    "entry",
    [
        "train.lr_g: {uniform: [1e-5, 1]}",
        "train.lr_g: {int: [1, 2]}",
        "transfer.freeze_d: {int: [0, 3]}",
        "transfer.freeze_g: {choice: [0, 1]}",
        "transfer.method: {choice: [finetune, freeze, scale_shift]}",
        "data.flip: {choice: [true, false]}",
        "augment.policy: {choice: [[color], [color, cutout]]}",
        "loss.r1: {choice: [0, 0.5]}",
        "loss: {choice: [{name: hinge}, {name: wasserstein, gp: 10}]}",
        "model.spectral_norm: {choice: [true]}",
        'init_from: {choice: [{artifact: "a:b"}, {artifact: "a:c"}]}',
        "evaluation.data.seed: {choice: [1, 2]}",
    ],
)
def test_points_that_fit(mistakes: Mistakes, entry: str) -> None:
    base = "base.evaluation.data={source: digits}"
    assert mistakes(SWEEP.replace(LINE, f"  {entry}"), base) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("transfer.freeze_d: {int: [0, 4]}", "5:32: space.transfer.freeze_d.int[1]: expected at most 3"
         " (a 32 px network has 4 blocks, one must stay trainable), received 4"),
        ("transfer.freeze_d: {choice: [1, 9]}", "5:35: space.transfer.freeze_d.choice[1]: expected at most 3"
         " (a 32 px network has 4 blocks, one must stay trainable), received 9"),
        ("train.lr: {int: [1, 2]}", '5:3: space.train.lr: there is no field "lr" in train (did you mean "train.lr_g"?)'),
        ("trian.lr_g: {int: [1, 2]}", '5:3: space.trian.lr_g: there is no field "trian" in the base (did you mean "train"?)'),
        ("train.lr_g.x: {int: [1, 2]}", '5:3: space.train.lr_g.x: there is no field "x" in train.lr_g'),
        ("name: {choice: [a]}", '5:3: space.name: "name" is the same in all trials, it can\'t be searched'),
        ("output.artifact: {choice: [a]}", '5:3: space.output.artifact: "output" is the same in all trials,'
         " it can't be searched"),
        ("train.lr_g: {uniform: [0.1, -0.1]}", "5:25: space.train.lr_g.uniform: expected [low, high] with low < high,"
         " received [0.1, -0.1]"),
        ("train.lr_g: {uniform: [-0.1, 0.1]}", "5:26: space.train.lr_g.uniform[0]: expected a number > 0, received -0.1"),
        ("train.beta1: {uniform: [0, 2]}", "5:30: space.train.beta1.uniform[1]: expected a number >= 0 and < 1, received 2"),
        ("train.lr_g: {log_uniform: [0, 0.1]}", "5:29: space.train.lr_g.log_uniform: expected a low end > 0, received 0.0"),
        ("train.lr_g: {log_uniform: [1]}", "5:29: space.train.lr_g.log_uniform: expected a list of numbers, exactly 2,"
         " received [1]"),
        ("train.batch_size: {uniform: [2, 8]}", "5:31: space.train.batch_size.uniform: train.batch_size is a whole number,"
         " it has no continuous range (use {int: [lo, hi]} or {choice: [...]})"),
        ("transfer.method: {uniform: [0, 1]}", "5:30: space.transfer.method.uniform: transfer.method is not a number,"
         " it has no continuous range (use {choice: [...]})"),
        ("transfer.method: {choice: [frezee]}", "5:30: space.transfer.method.choice[0]: unknown transfer method"
         f' "frezee"; expected one of: {", ".join(registry.TRANSFERS)} (did you mean "freeze"?)'),
        ("train.lr_g: {chioce: [1]}", '5:16: space.train.lr_g.chioce: unknown key "chioce" (did you mean "choice"?)'),
        ("train.lr_g: 3", "5:15: space.train.lr_g: expected a mapping, received 3"),
        ("train.lr_g: {choice: []}", "5:24: space.train.lr_g.choice: expected a list of values, at least 1, received []"),
        ("train.lr_g: {}", "5:15: space.train.lr_g: expected exactly one of: int, uniform, log_uniform, choice;"
         " received none of them"),
        ("train.lr_g: {int: [1, 2], choice: [3]}", "5:15: space.train.lr_g: expected exactly one of: int, uniform,"
         " log_uniform, choice; received int, choice"),
        ("resources.workers: {choice: [3]}", "5:32: space.resources.workers.choice[0]: with this value, train.batch_size:"
         " expected a multiple of resources.workers (3), received 64 (write 63 or 66)"),
        ("data: {choice: [{source: x, resolution: 32}]}", "5:19: space.data.choice[0]: with this value, data.source: unknown"
         ' data source "x"; expected one of: glyphs, digits, photos, folder, parquet, torchvision'),
    ],
)  # fmt: skip
def test_points_that_do_not(mistakes: Mistakes, entry: str, message: str) -> None:
    assert mistakes(SWEEP.replace(LINE, f"  {entry}")) == [f"spec.yaml:{message}"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space={}", "space: expected a mapping with at least one entry, received an empty one"),
        ("search.trials=0", "search.trials: expected a whole number from 1 to 100000, received 0"),
        ("search.parallel=0", "search.parallel: expected a whole number from 1 to 4096, received 0"),
        ("finalists=9", "finalists: expected at most search.trials (8), received 9"),
        ("objective.metric=fit",
         f'objective.metric: unknown metric "fit"; expected one of: {", ".join(registry.METRICS)} (did you mean "fid"?)'),
        ("objective.mode=max", 'objective.mode: expected "min", for a lower kid is better; received "max"'),
        ("early_stop.grace_kimg=9", "early_stop.grace_kimg: expected at most the base's train.kimg (8), received 9"),
        ("base=nowhere.yaml", 'base: "nowhere.yaml": no such file'),
        ("base=evaluate.yaml", "kind: expected one of: pretrain, finetune; received \"evaluate\""),
        ("base=[1]", "base: expected a spec (a mapping with `kind`), received a list"),
    ],
)  # fmt: skip
def test_the_rest_of_a_sweep(mistakes: Mistakes, override: str, message: str) -> None:
    assert any(message in text for text in mistakes(SWEEP, override)), mistakes(SWEEP, override)


def test_a_base_with_mistakes_is_reported_once_in_its_own_file(specs: Path, mistakes: Mistakes) -> None:
    Path("finetune.yaml").write_text(Path("finetune.yaml").read_text().replace("kimg: 8", "kimg: x"))
    found = mistakes(SWEEP.replace("1e-5", "-1"))
    assert found == [
        'finetune.yaml:7:15: train.kimg: expected a number > 0, received "x"',
        "spec.yaml:5:29: space.train.lr_g.log_uniform: expected a low end > 0, received -1.0",
    ]


def test_a_missing_base_is_missing(mistakes: Mistakes) -> None:
    assert "spec.yaml:1:1: base: required, but missing" in mistakes(SWEEP.replace("base: finetune.yaml\n", ""))[0]


def test_a_grid_has_no_continuous_axes(mistakes: Mistakes) -> None:
    found = mistakes(SWEEP + "search: {algo: grid}\n")
    assert found == [
        "spec.yaml:5:29: space.train.lr_g.log_uniform: a grid search has no steps in a continuous range"
        " (use {choice: [...]})"
    ]
    assert mistakes(SWEEP.replace(LINE, "  train.lr_g: {choice: [1e-3, 1e-4]}") + "search: {algo: grid}\n") == []


def test_a_freeze_depth_is_searched_in_vain_without_a_method_that_freezes(mistakes: Mistakes) -> None:
    text = SWEEP.replace(LINE, "  transfer.freeze_d: {int: [0, 2]}")
    found = mistakes(text, "base.transfer={method: finetune}")
    assert found == [
        "spec.yaml:5:32: space.transfer.freeze_d.int[1]: expected 0, for the method finetune freezes nothing; received 2"
        " (write method: freeze)"
    ]
    text = text.replace("{int: [0, 2]}", "{int: [0, 2]}\n  transfer.method: {choice: [finetune, freeze]}")
    assert mistakes(text, "base.transfer={method: finetune}") == []


def test_options_of_some_methods_may_be_idle_in_a_search_over_methods(mistakes: Mistakes) -> None:
    """A trial of another method leaves them out; what no method in question has is refused."""
    options = "  transfer.weight: {log_uniform: [1.0e-3, 1.0]}\n  transfer.rank: {int: [1, 4]}"
    both = SWEEP.replace(LINE, f"  transfer.method: {{choice: [finetune, ewc, kernel_modulation]}}\n{options}")
    assert mistakes(both) == []
    (alone,) = mistakes(SWEEP.replace(LINE, "  transfer.rank: {int: [1, 4]}"))[:1]
    assert "space.transfer.rank.int[0]: freeze has no rank (it is for kernel_modulation); leave it out" in alone
    job = load_spec("finetune.yaml")
    point = {"transfer.freeze_d": 0, "transfer.weight": 0.5, "transfer.rank": 2, "transfer.method": "ewc"}
    trial = apply_params(job, point)
    recipe = trial.recipe(ModelSpec(), LossSpec())
    assert (recipe.transfer.weight, recipe.transfer.rank) == (0.5, None)
    same = apply_params(job, {**point, "transfer.rank": 3}).recipe(ModelSpec(), LossSpec())
    assert recipe.digest == same.digest


def test_methods_are_searched_with_their_options(mistakes: Mistakes) -> None:
    choices = "{method: finetune}, {method: freeze, freeze_d: 1}, {method: ewc, weight: 1.0}"
    assert mistakes(SWEEP.replace(LINE, f"  transfer: {{choice: [{choices}]}}")) == []
    (said,) = mistakes(SWEEP.replace(LINE, "  transfer: {choice: [{method: finetune}, {method: l2_sp, rank: 1}]}"))
    assert "space.transfer.choice[1]: with this value, transfer.rank: l2_sp has no rank" in said


def test_an_inline_base(mistakes: Mistakes) -> None:
    inline = "{kind: pretrain, name: p, data: {source: glyphs}, train: {kimg: 4, batch_size: x}}"
    assert mistakes(SWEEP.replace("finetune.yaml", inline)) == [
        'spec.yaml:3:86: base.train.batch_size: expected a whole number from 2 to 65536, received "x"'
    ]


def test_check_space_of_a_job(specs: Path) -> None:
    job = load_spec("sweep.yaml")
    assert isinstance(job, SweepJob)
    assert check_space(job.base, job.space) == []
    found = check_space(job.base, {"train.lr": {"choice": [1]}, "train.kimg": Space(choice=[1, -1])})
    assert [str(p) for p in found] == [
        'space.train.lr: there is no field "lr" in train (did you mean "train.lr_g"?)',
        "space.train.kimg.choice[1]: expected a number > 0, received -1",
    ]


def test_space_values() -> None:
    assert Space.model_validate({"int": [2, 4]}).grid() == [2, 3, 4]
    assert Space(choice=["a", None]).grid() == ["a", None]
    continuous = Space(log_uniform=[1.0, 2.0])
    assert (continuous.kind, continuous.grid(), continuous.values) == ("log_uniform", None, [1.0, 2.0])
    assert Space.model_validate({"int": [0, 1]}).kind == "int"
