"""The specs that the public contract shows, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.job import FinetuneJob, PipelineJob, PretrainJob, SweepJob
from cluster.specfile import check_files, load_spec, load_specs, parse_job

CONTRACT = """\
version: 1
kind: pretrain
name: glyphs32
data:    {source: glyphs, resolution: 32}         # or {artifact: "name:alias"} or {source: folder, path: ...} or {source: parquet, path: s3://...}
model:   {arch: dcgan, resolution: 32, channels: 1}
loss:    {name: nonsaturating, r1: 0.5}
train:   {kimg: 400, batch_size: 128, lr_g: 2.0e-4, lr_d: 2.0e-4, precision: fp32, seed: 0}
resources: {workers: 2, cpus_per_worker: 1, gpus_per_worker: 0}
checkpoint: {every_kimg: 50, keep: 2}
metrics: [kid]
output:  {artifact: glyphs32}
---
version: 1
kind: finetune
name: digits-from-glyphs
init_from: {artifact: "glyphs32:latest"}
data:      {source: digits, resolution: 32, limit: 100}
transfer:  {method: freeze, freeze_d: 2, freeze_g: 0}
augment:   {name: diffaugment}
train:     {kimg: 64, batch_size: 64, lr_g: 2.0e-4, lr_d: 2.0e-4}
output:    {artifact: digits32}
---
version: 1
kind: sweep
name: digits-sweep
base: finetune.yaml                 # a path or an inline spec
space:
  transfer.freeze_d: {int: [0, 3]}
  train.lr_g: {log_uniform: [5.0e-5, 1.0e-3]}
  transfer.method: {choice: [finetune, freeze, scale_shift]}
search:     {algo: random, trials: 8, parallel: 2, seed: 0}      # random | grid | tpe | pbt
early_stop: {scheduler: asha, grace_kimg: 8, eta: 3}
objective:  {metric: kid, mode: min}
output:     {artifact: digits32, aliases: [best]}
---
version: 1
kind: evaluate
name: digits-eval
target:  {artifact: "digits32:best"}
data:    {source: digits, resolution: 32}
metrics: [fid, kid, precision, recall]
samples: 2000
gate:    {kid: "< 0.05"}
promote: production
---
version: 1
kind: pipeline
name: glyphs-to-digits
stages:
  base: {run: pretrain.yaml}
  tune: {run: sweep.yaml, needs: [base], set: {base.init_from: {stage: base}}}
  eval: {run: evaluate.yaml, needs: [tune], set: {target: {stage: tune}}}
"""  # noqa: E501
NAMES = ("pretrain", "finetune", "sweep", "evaluate", "pipeline")
SHIPPED = sorted((Path(__file__).parents[3] / "jobs" / "specs").glob("*.yaml"))


@pytest.fixture
def contract(workdir: Path) -> Path:
    for name, text in zip(NAMES, CONTRACT.split("---\n"), strict=True):
        (workdir / f"{name}.yaml").write_text(text)
    (workdir / "all.yaml").write_text(CONTRACT)
    return workdir


def test_contract_specs_are_valid_as_written(contract: Path) -> None:
    jobs, problems = check_files([f"{name}.yaml" for name in NAMES])
    assert problems == []
    assert [job.kind for job in jobs] == list(NAMES)


def test_one_file_may_hold_them_all(contract: Path) -> None:
    assert [job.kind for job in load_specs("all.yaml")] == list(NAMES)


def test_values_arrive(contract: Path) -> None:
    pretrain, finetune, sweep = (load_spec(f"{name}.yaml") for name in NAMES[:3])
    assert isinstance(pretrain, PretrainJob)
    assert (pretrain.train.kimg, pretrain.train.batch_size, pretrain.resources.workers) == (400, 128, 2)
    assert isinstance(finetune, FinetuneJob)
    assert str(finetune.init_from) == "glyphs32:latest"
    assert isinstance(sweep, SweepJob)
    assert sweep.base == finetune
    assert sweep.space["transfer.freeze_d"].grid() == [0, 1, 2, 3]
    assert sweep.space["train.lr_g"].values == [5.0e-5, 1.0e-3]


def test_pipeline_stages_have_their_values_set(contract: Path) -> None:
    job = load_spec("pipeline.yaml")
    assert isinstance(job, PipelineJob)
    assert job.order() == ["base", "tune", "eval"]
    tune = job.stages["tune"].run
    assert isinstance(tune, SweepJob)
    assert isinstance(tune.base, FinetuneJob)
    assert tune.base.init_from.stage == "base"
    assert tune.base.init_from.artifact is None


@pytest.mark.parametrize("name", NAMES)
def test_a_job_survives_its_own_dictionary(contract: Path, name: str) -> None:
    job = load_spec(f"{name}.yaml")
    assert parse_job(job.to_dict()) == job


def test_there_is_a_shipped_spec_of_every_kind() -> None:
    kinds = {job.kind for path in SHIPPED for job in load_specs(path)}
    assert kinds == {"pretrain", "finetune", "classifier", "sweep", "evaluate", "generate", "pipeline"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_specs_are_valid_and_named_after_their_kind(path: Path) -> None:
    assert load_spec(path).kind == path.stem.partition("-")[0]


def test_recipes_are_assembled(contract: Path) -> None:
    pretrain, finetune = load_spec("pretrain.yaml"), load_spec("finetune.yaml", ["loss.r1=2"])
    assert isinstance(pretrain, PretrainJob)
    assert isinstance(finetune, FinetuneJob)
    parent = pretrain.recipe()
    assert (parent.model.channels, parent.loss.r1, parent.transfer) == (1, 0.5, None)
    child = finetune.recipe(parent.model, parent.loss)
    assert child.model == parent.model
    assert (child.loss.name, child.loss.r1) == ("nonsaturating", 2.0)
    assert child.transfer is not None
    assert child.transfer.freeze_d == 2
    assert child.digest != parent.digest


def test_a_model_without_resolution_takes_the_datas(workdir: Path) -> None:
    Path("s.yaml").write_text(
        "{kind: pretrain, name: p, data: {source: glyphs, resolution: 64}, model: {width: 8}, train: {kimg: 1}}"
    )
    job = load_spec("s.yaml")
    assert isinstance(job, PretrainJob)
    assert job.recipe().model.resolution == 64
    assert job.publishes.artifact == "p"
