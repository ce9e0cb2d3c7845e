"""Pipelines: the graph, what stages hand on, and values set from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.job import PipelineJob
from cluster.specfile import load_spec, parse_job

Mistakes = Callable[..., list[str]]
HEAD = "kind: pipeline\nname: all\nstages:\n"
FEATURES = "{kind: classifier, name: features, data: {source: glyphs}}"
SAMPLES = "{kind: generate, name: samples, target: {stage: base}}"


def stages(*lines: str) -> str:
    return HEAD + "".join(f"  {line}\n" for line in lines)


BASE = "base: {run: pretrain.yaml}"
TUNE = "tune: {run: sweep.yaml, needs: [base], set: {base.init_from: {stage: base}}}"


def test_a_diamond(specs: Path) -> None:
    left = "left: {run: finetune.yaml, needs: [base], set: {init_from: {stage: base}, output.artifact: left}}"
    right = "right: {run: finetune.yaml, needs: [base], set: {init_from: {stage: base}, output.artifact: right}}"
    end = f"end: {{run: {SAMPLES.replace('base', 'left')}, needs: [left, right]}}"
    Path("p.yaml").write_text(stages(end, left, right, BASE))
    job = load_spec("p.yaml")
    assert isinstance(job, PipelineJob)
    assert job.order() == ["base", "left", "right", "end"]
    assert parse_job(job.to_dict()) == job


FREEZE = "expected at most 3 (a 32 px network has 4 blocks, one must stay trainable), received"
CASES = [
    ([BASE, TUNE.replace("[base]", "[bse]")], "bse]", 'stages.tune.needs[0]: unknown stage "bse" (did you mean "base"?)'),
    ([BASE, TUNE.replace(" needs: [base],", "")], "base}}}", "stages.tune.set.base.init_from.stage: takes the result of"
     ' stage "base", which is not in the needs of "tune" (write needs: [base])'),
    ([BASE, TUNE.replace("stage: base", "stage: bsae")], "bsae", "stages.tune.set.base.init_from.stage: unknown stage"
     ' "bsae"; expected one of: base, tune (did you mean "base"?)'),
    ([BASE, TUNE.replace("stage: base", "stage: tune")], "tune}}}", 'stages.tune.set.base.init_from.stage: stage "tune"'
     " takes its own result as input"),
    ([BASE.replace("}", ", needs: [base]}")], "base]", 'stages.base.needs[0]: stage "base" needs itself'),
    ([f"base: {{run: {FEATURES}}}", f"samples: {{run: {SAMPLES}, needs: [base]}}"], "base}}",
     'stages.samples.run.target.stage: expected a stage that makes a GAN; "base" publishes a classifier'),
    (["base: {run: evaluate.yaml}", f"samples: {{run: {SAMPLES}, needs: [base]}}"], "base}}",
     'stages.samples.run.target.stage: expected a stage that makes a GAN; "base" publishes nothing'),
    (["a: {run: zzz.yaml}"], "zzz", 'stages.a.run: "zzz.yaml": no such file'),
    (["a: {run: swep.yaml}"], "swep", 'stages.a.run: "swep.yaml": no such file (did you mean "sweep.yaml"?)'),
    (["a: {run: two.yaml}"], "two", 'stages.a.run: expected one spec in "two.yaml", received 2'),
    (["a: {run: spec.yaml}"], "pipeline", "kind: expected one of: pretrain, finetune, classifier, sweep, evaluate,"
     ' generate; received "pipeline"'),
    (["a: {run: 3}"], "3}", 'stages.a.run: expected a spec (a mapping with `kind`), received "3"'),
    (["a: {}"], "{}", "stages.a.run: required, but missing (expected a mapping)"),
    (["a: 3"], "3", "stages.a: expected a mapping, received 3"),
    (["A b: {run: pretrain.yaml}"], "A b", 'stages.A b: expected a name of lower-case letters, digits, ".", "_" and "-",'
     ' received "A b" (did you mean "a-b"?)'),
    ([BASE, "base: {run: pretrain.yaml}"], "base", 'stages.base: the key "base" is given twice; first in line 4'),
    ([BASE.replace("}", ", set: {train.kimg: x}}")], "x}}", "stages.base.set.train.kimg: expected a number > 0,"
     ' received "x"'),
    ([BASE.replace("}", ", set: {train.kmig: 3}}")], "train.kmig", 'stages.base.set.train.kmig: unknown key "kmig"'
     ' (did you mean "kimg"?)'),
    ([BASE.replace("}", ", set: {trian.x: 3}}")], "trian.x", 'stages.base.set.trian.x: unknown key "trian"'
     ' (did you mean "train"?)'),
    ([BASE.replace("}", ", set: {train.kimg.x: 3}}")], "train.kimg.x", "stages.base.set.train.kimg.x: nothing inside the"
     " stage's job could be set there"),
    ([BASE.replace("}", ", set: [3]}")], "[3]", "stages.base.set: expected a mapping, received [3]"),
    ([BASE, TUNE.replace("}}}", "}, base.transfer.freeze_d: 7}}")], "7",
     f"stages.tune.set.base.transfer.freeze_d: {FREEZE} 7"),
    ([f"features: {{run: {FEATURES}}}", BASE.replace("}", ', set: {evaluation.extractor: "classifier:features:latest"}}')],
     '"classifier', 'stages.base.set.evaluation.extractor: "features:latest" is published by stage "features", which "base"'
     " does not wait for (write needs: [features])"),
    ([BASE, TUNE.replace("}}}", "}, base.data.resolution: 64}}")], "64", "stages.tune.set.base.data.resolution: expected"
     " 32, the size of the parent's images; received 64"),
    ([BASE, TUNE.replace("}}}", "}, base.data.channels: 3}}")], "3", "stages.tune.set.base.data.channels: expected 1, as"
     " the parent's networks; received 3"),
]  # fmt: skip


def test_overrides_of_set_are_applied_and_checked(specs: Path, mistakes: Mistakes) -> None:
    Path("p.yaml").write_text(stages(BASE, TUNE))
    for override in ("stages.base.set.train.kimg=3", "stages.base.set={train.kimg: 3}"):
        job = load_spec("p.yaml", [override])
        assert isinstance(job, PipelineJob)
        assert job.stages["base"].run.train.kimg == 3
    (problem,) = mistakes(stages(BASE, TUNE), "stages.base.set={train.kmig: 3}")
    assert 'unknown key "kmig" (did you mean "kimg"?)' in problem


@pytest.mark.parametrize(("lines", "where", "message"), CASES, ids=[message for *_, message in CASES])
def test_mistakes(specs: Path, mistakes: Mistakes, lines: list[str], where: str, message: str) -> None:
    Path("two.yaml").write_text("a: 1\n---\nb: 1")
    text = stages(*lines)
    before = text[: text.rindex(where)]
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    assert mistakes(text) == [f"spec.yaml:{place}: {message}"]


def test_an_artifact_that_an_unneeded_stage_publishes(mistakes: Mistakes) -> None:
    assert mistakes(stages(BASE, "late: {run: finetune.yaml}")) == [
        'finetune.yaml:4:23: init_from.artifact: "glyphs32:latest" is published by stage "base", which "late" does not wait'
        " for (write needs: [base])"
    ]


def test_a_cycle_is_named(mistakes: Mistakes) -> None:
    lines = [f"{name}: {{run: pretrain.yaml, needs: [{need}]}}" for name, need in ("ab", "bc", "ca")]
    assert mistakes(stages(*lines)) == ["spec.yaml:4:34: stages.a.needs: stages wait for each other: a -> b -> c -> a"]


def test_freeze_depth_follows_the_parent_stage(mistakes: Mistakes) -> None:
    tune = TUNE.replace("}}}", "}, base.data.resolution: null, base.transfer.freeze_d: 4}}")
    assert "a 32 px network has 4 blocks" in mistakes(stages(BASE, tune))[0]
    assert mistakes(stages(BASE.replace("}", ", set: {data.resolution: 64}}"), tune)) == []


def test_mistakes_in_a_stages_file_stand_in_that_file(specs: Path, mistakes: Mistakes) -> None:
    Path("finetune.yaml").write_text(Path("finetune.yaml").read_text().replace("kimg: 8", "kimg: x"))
    assert mistakes(stages(BASE, TUNE)) == ['finetune.yaml:7:15: train.kimg: expected a number > 0, received "x"']


def test_the_stages_of_files_in_other_folders(specs: Path) -> None:
    Path("pipes").mkdir()
    Path("pipes/p.yaml").write_text(stages("base: {run: ../pretrain.yaml}", TUNE.replace("sweep", "../sweep")))
    assert load_spec("pipes/p.yaml").kind == "pipeline"


def test_an_empty_pipeline(mistakes: Mistakes) -> None:
    assert mistakes("{kind: pipeline, name: p, stages: {}}") == [
        "spec.yaml:1:35: stages: expected a mapping with at least one entry, received an empty one"
    ]
    assert "stages: required, but missing" in mistakes("{kind: pipeline, name: p}")[0]
    assert "stages: expected a mapping" in mistakes("{kind: pipeline, name: p, stages: [a]}")[0]
