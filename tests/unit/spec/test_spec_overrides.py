"""`-s path=value`, typed by the schema; and sampled parameters, which take the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spec_texts import FINETUNE, PRETRAIN, SWEEP

from cluster.job import FinetuneJob, PipelineJob, PretrainJob, SweepJob
from cluster.specfile import apply_override, apply_params, load_spec, parse_job
from tlgan.errors import SpecError

Mistakes = Callable[..., list[str]]
PIPELINE = """\
kind: pipeline
name: all
stages:
  base: {run: pretrain.yaml, set: {train.kimg: 5}}
  tune: {run: sweep.yaml, needs: [base], set: {base.init_from: {stage: base}}}
"""


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.kimg=16", "train.kimg", 16.0),
        ("train.lr_g=1e-3", "train.lr_g", 1e-3),
        ("train.batch_size=1e2", "train.batch_size", 100),
        ("name=123", "name", "123"),
        ("name=true", "name", "true"),
        ("data.path=null", "data.path", None),
        ("data.classes=[a, 'b', \"1\"]", "data.classes", ["a", "b", "1"]),
        ("data.classes=[a]", "data.classes", ["a"]),
        ("metrics=[kid, fid]", "metrics", ["kid", "fid"]),
        ("loss={name: hinge, r1: 1}", "loss.r1", 1.0),
        ("loss.r1 = 2", "loss.r1", 2.0),
        ("data.source=torchvision:CIFAR10", "data.source", "torchvision:CIFAR10"),
    ],
)
def test_values_are_typed_by_the_schema(specs: Path, override: str, path: str, value: Any) -> None:
    found: Any = load_spec("pretrain.yaml", [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_list_items_and_order(specs: Path) -> None:
    job = load_spec("pretrain.yaml", ["metrics=[kid, fid]", "metrics.1=recall", "train.kimg=1", "train.kimg=2"])
    assert isinstance(job, PretrainJob)
    assert (job.metrics, job.train.kimg) == (["kid", "recall"], 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.kimg=fast", '--set train.kimg=fast: train.kimg: expected a number > 0, received "fast"'),
        ("train.kimgs=8", '--set train.kimgs=8: train.kimgs: unknown key "kimgs" (did you mean "kimg"?)'),
        ("trian.kimg=8", '--set trian.kimg=8: trian.kimg: unknown key "trian" (did you mean "train"?)'),
        ("kimg=8", '--set kimg=8: kimg: unknown key "kimg" (did you mean "train.kimg"?)'),
        ("train.kimg.x=8", '--set train.kimg.x=8: train.kimg.x: "train.kimg" has nothing inside that could be set'),
        ("metrics.5=kid", '--set metrics.5=kid: metrics.5: "metrics" has nothing inside that could be set'),
        ("train.kimg", '--set: expected path=value, received "train.kimg" (as in train.kimg=8)'),
        ("=8", '--set: expected path=value, received "=8" (as in train.kimg=8)'),
        ("loss={name", "--set loss={name: loss: did not find expected ',' or '}'"),
        ("train=", "--set train=: train: expected a mapping, received nothing"),
    ],
)
def test_mistakes_name_the_override(mistakes: Mistakes, override: str, message: str) -> None:
    assert message in mistakes(PRETRAIN + "metrics: [kid]\n", override)


def test_an_override_mends_the_file(mistakes: Mistakes) -> None:
    assert mistakes(PRETRAIN.replace("kimg: 8", "kimg: x")) != []
    assert mistakes(PRETRAIN.replace("kimg: 8", "kimg: x"), "train.kimg=1") == []


def test_overrides_reach_a_sweeps_base_and_space(specs: Path) -> None:
    job = load_spec(
        "sweep.yaml", ["base.train.kimg=3", "search.trials=2", "space.train.lr_d={uniform: [0.001, 0.002]}"]
    )
    assert isinstance(job, SweepJob)
    assert (job.base.train.kimg, job.search.trials) == (3, 2)
    assert job.space["train.lr_d"].values == [0.001, 0.002]
    other = load_spec("sweep.yaml", ["base=pretrain.yaml", "base.train.kimg=4"])
    assert isinstance(other, SweepJob)
    assert (other.base.kind, other.base.train.kimg) == ("pretrain", 4)


def test_overrides_reach_stages_by_name(specs: Path) -> None:
    Path("pipe.yaml").write_text(PIPELINE)
    job = load_spec("pipe.yaml", ["base.train.kimg=7", "tune.base.train.kimg=3", "tune.search.trials=2", "name=other"])
    assert isinstance(job, PipelineJob)
    base, tune = job.stages["base"].run, job.stages["tune"].run
    assert isinstance(base, PretrainJob)
    assert isinstance(tune, SweepJob)
    assert (base.train.kimg, tune.base.train.kimg, tune.search.trials, job.name) == (7, 3, 2, "other")
    unchanged = load_spec("pipe.yaml")
    assert isinstance(unchanged, PipelineJob)
    assert unchanged.stages["base"].run.train.kimg == 5  # type: ignore[union-attr]


def test_overrides_of_stages_keep_the_name_that_was_typed(mistakes: Mistakes) -> None:
    assert mistakes(PIPELINE, "tune.base.train.kimg=x", "tune.base.trian=1") == [
        '--set tune.base.train.kimg=x: tune.base.train.kimg: expected a number > 0, received "x"',
        '--set tune.base.trian=1: tune.base.trian: unknown key "trian" (did you mean "train"?)',
    ]


def test_relative_files_in_overrides_are_relative_to_the_current_folder(specs: Path) -> None:
    Path("sub").mkdir()
    Path("sub/sweep.yaml").write_text(SWEEP)
    Path("sub/finetune.yaml").write_text(FINETUNE)
    job = load_spec("sub/sweep.yaml", ["base=pretrain.yaml"])
    assert isinstance(job, SweepJob)
    assert job.base.kind == "pretrain"


def test_apply_override_leaves_the_original_alone() -> None:
    spec = {"kind": "pretrain", "train": {"kimg": 1}}
    assert apply_override(spec, "train.kimg=2") == {"kind": "pretrain", "train": {"kimg": 2}}
    assert spec["train"] == {"kimg": 1}
    with pytest.raises(ValueError, match="expected path=value"):
        apply_override(spec, "nothing")


def test_sampled_parameters(specs: Path) -> None:
    job = load_spec("finetune.yaml")
    trial = apply_params(job, {"train.lr_g": 1e-3, "transfer.method": "finetune", "loss.r1": 1, "transfer.freeze_d": 3})
    assert isinstance(trial, FinetuneJob)
    assert isinstance(job, FinetuneJob)
    assert (trial.train.lr_g, trial.transfer.method, trial.transfer.freeze_d) == (1e-3, "finetune", 3)
    assert trial.loss is not None
    assert trial.loss.r1 == 1
    assert (job.train.lr_g, job.transfer.method, job.loss) == (2e-4, "freeze", None)
    assert apply_params(job, {}) == job


def test_sampled_parameters_that_do_not_fit(specs: Path) -> None:
    with pytest.raises(SpecError) as caught:
        apply_params(load_spec("finetune.yaml"), {"train.lr_g": -1.0, "transfer.freeze_d": 4})
    assert sorted(str(p) for p in caught.value.problems) == [
        "train.lr_g: expected a number > 0, received -1",
        "transfer.freeze_d: expected at most 3 (a 32 px network has 4 blocks, one must stay trainable), received 4",
    ]


def test_parse_job_of_a_plain_mapping() -> None:
    spec = {"kind": "pretrain", "name": "p", "data": {"source": "glyphs"}, "train": {"kimg": 1}}
    job = parse_job(spec, ["train.kimg=2"])
    assert isinstance(job, PretrainJob)
    assert (job.train.kimg, spec["train"]) == (2, {"kimg": 1})
    with pytest.raises(SpecError, match=r"train\.kimg: expected a number > 0"):
        parse_job(spec, ["train.kimg=0"])
