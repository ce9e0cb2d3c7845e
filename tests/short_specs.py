"""The shipped specs with less of everything, in an order in which each finds what it starts from."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from jobs.cli import main

SPECS = files("jobs") / "specs"
TRAIN = ["train.kimg=0.5", "train.batch_size=32"]
SWEEP = ["base.evaluation.samples=64"]
ONE = ["search.parallel=1"]  # each trial that trains beside others is a process more, and `sweep` has two
SHORT = {
    "classifier": ["train.kimg=2", "model.width=8"],
    "pretrain": [*TRAIN, "model.width=8", "data.limit=1000", "resources.workers=0", "evaluation.samples=64"],
    "pretrain-stylegan2": [*TRAIN, "model.width=8", "model.max_width=16", "data.limit=1000", "evaluation.samples=64"],
    "pretrain-r3gan": [*TRAIN, "model.width=8", "model.max_width=16", "data.limit=1000", "evaluation.samples=64"],
    "pretrain-conditional": [*TRAIN, "model.width=8", "evaluation.samples=64"],
    "finetune-ada": [*TRAIN, "evaluation.samples=64"],
    "finetune": [*TRAIN, "evaluation.samples=64", "output.aliases=[best]"],
    "finetune-guarded": [*TRAIN, "evaluation.samples=64", "guards.metrics={}", "guards.statistics={}"],
    "evaluate-all": ["samples=64", "resources.workers=0"],
}
ON_RAY = {
    "sweep": [*SWEEP, "base.train.kimg=0.5", "search.trials=2", "early_stop.grace_kimg=0.2"],
    "sweep-methods": [*SWEEP, *ONE, "base.train.kimg=0.5", "search.trials=2", "finalists=1"],
    "sweep-tpe": [*SWEEP, *ONE, "base.train.kimg=0.5", "search.trials=3", "early_stop.grace_kimg=0.2"],
    "sweep-pbt": [*SWEEP, *ONE, "base.train.kimg=0.6", "search.trials=3", "search.pbt.every_kimg=0.3"],
    "evaluate": ["samples=64", "gate.kid=< 1000"],
    "generate": ["n=4", "out=four.png"],
}


def run_each(specs: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Runs shipped specs with these overrides; the names of what the store has then."""
    for name, overrides in specs.items():
        arguments = ["run", str(SPECS / f"{name}.yaml"), "--json", *(a for o in overrides for a in ("-s", o))]
        assert main(arguments) == 0, capsys.readouterr().err
        record = json.loads(capsys.readouterr().out)
        assert record["state"] == "succeeded"
        assert record["kind"] == name.partition("-")[0]
    assert main(["artifact", "ls", "--json"]) == 0
    return {row["name"] for row in json.loads(capsys.readouterr().out)}
