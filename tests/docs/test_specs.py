"""Every shipped spec runs: the same files, with less of everything."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main

SPECS = files("jobs") / "specs"
TRAIN = ["train.kimg=0.5", "train.batch_size=32"]
SHORT = {
    "classifier": ["train.kimg=2", "model.width=8"],
    "pretrain": [*TRAIN, "model.width=8", "data.limit=1000", "resources.workers=0", "evaluation.samples=64"],
    "pretrain-stylegan2": [*TRAIN, "model.width=8", "model.max_width=16", "data.limit=1000", "evaluation.samples=64"],
    "pretrain-r3gan": [*TRAIN, "model.width=8", "model.max_width=16", "data.limit=1000", "evaluation.samples=64"],
    "pretrain-conditional": [*TRAIN, "model.width=8", "evaluation.samples=64"],
    "finetune-ada": [*TRAIN, "evaluation.samples=64"],
    "finetune": [*TRAIN, "evaluation.samples=64"],
    "sweep": ["base.train.kimg=0.5", "base.evaluation.samples=64", "search.trials=2", "early_stop.grace_kimg=0.2"],
    "sweep-methods": ["base.train.kimg=0.5", "base.evaluation.samples=64", "search.trials=2", "finalists=1"],
    "sweep-tpe": [
        "base.train.kimg=0.5",
        "base.evaluation.samples=64",
        "search.trials=3",
        "early_stop.grace_kimg=0.2",
    ],
    "sweep-pbt": [
        "base.train.kimg=0.6",
        "base.evaluation.samples=64",
        "search.trials=3",
        "search.pbt.every_kimg=0.3",
    ],
    "finetune-guarded": [*TRAIN, "evaluation.samples=64", "guards.metrics={}", "guards.statistics={}"],
    "evaluate": ["samples=64", "gate.kid=< 1000"],
    "evaluate-all": ["samples=64", "resources.workers=0"],
    "generate": ["n=4", "out=four.png"],
}


def test_none_is_forgotten() -> None:
    shipped = {spec.name.removesuffix(".yaml") for spec in SPECS.iterdir() if spec.name.endswith(".yaml")}
    assert shipped == {*SHORT, "pipeline"}, "pipeline.yaml is run by the quickstart's test"


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_each_spec_runs(shared_ray: Any, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, overrides in SHORT.items():
        arguments = ["run", str(SPECS / f"{name}.yaml"), "--json", *(a for o in overrides for a in ("-s", o))]
        assert main(arguments) == 0, capsys.readouterr().err
        record = json.loads(capsys.readouterr().out)
        assert record["state"] == "succeeded"
        assert record["kind"] == name.partition("-")[0]
    assert main(["artifact", "ls", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    trained = {"glyphs32", "glyphs32-stylegan2", "glyphs32-r3gan", "digits32", "digits32-ada", "digits32-classes"}
    assert names == {"glyph-features", *trained}
    assert main(["generate", "digits32-classes:latest", "--class", "7", "--out", "sevens.npz", "--n", "3"]) == 0
    assert main(["generate", "digits32-classes:latest", "--class", "x"]) == 2
    assert 'there is no class "x"; expected one of: 0, 1, 2' in capsys.readouterr().err
    assert Path("four.png").is_file()
