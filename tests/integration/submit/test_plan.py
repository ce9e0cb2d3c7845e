"""`tlgan plan`: what is done already, whether it fits, how long it takes and what it costs; and how far off that was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.runs import Runs
from cluster.store import open_store

pytestmark = pytest.mark.timeout(240)
Run = Callable[..., tuple[int, str, str]]


def planned(run: Run, *arguments: str) -> Any:
    code, out, err = run("plan", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_an_estimate_is_held_against_what_the_run_took(spec: Path, run: Run) -> None:
    targets = {"here": {"kind": "local", "price": {"cpu_hour": 3600.0, "currency": "EUR"}}}
    Path("tlgan.yaml").write_text(yaml.safe_dump({"targets": targets}))
    told = planned(run, "tiny.yaml", "--on", "here", "-s", "resources.workers=0")
    (one,) = told["estimate"]
    assert (one["steps"], one["measurements"], one["trials"]) == (16, 0, 1)
    assert one["seconds"] == pytest.approx(one["begin_seconds"] + 16 * one["step_seconds"])
    assert one["memory_bytes"] > 100 << 20
    assert told["cost"] == {"amount": pytest.approx(one["seconds"]), "currency": "EUR"}
    assert told["request"]["command"][3:5] == ["jobs.launch", open_store().url]
    assert told["inputs"]["data"]["ref"] == "digits 1797 images"
    assert [(stage["state"], stage["outputs"]) for stage in told["stages"]] == [("runs", [])]
    assert run("ls", "--json")[1].strip() == "[]", "nothing was started"

    assert run("run", "tiny.yaml", "-q")[0] == 0
    record = Runs(open_store()).get("tiny")
    assert record.id == told["stages"][0]["run"]
    fact = record.facts["estimate"]
    assert fact["seconds"] == pytest.approx(one["seconds"])
    assert fact["error"] == pytest.approx(fact["seconds"] / fact["took"] - 1)
    again = planned(run, "tiny.yaml")
    assert (again["stages"][0]["state"], again["stages"][0]["outputs"]) == ("done", [record.outputs[0]["ref"]])
    assert again["estimate"] is None


def test_stages_that_are_done_and_stages_that_wait(spec: Path, run: Run) -> None:
    assert run("run", "tiny.yaml", "-q")[0] == 0
    child = {"kind": "finetune", "name": "child", "data": {"source": "digits"}, "train": {"kimg": 1, "batch_size": 32}}
    stages = {
        "base": {"run": "tiny.yaml"},
        "tune": {"run": {**child, "init_from": {"stage": "base"}}, "needs": ["base"]},
        "draw": {"run": {"kind": "generate", "name": "d", "target": {"stage": "tune"}}, "needs": ["tune"]},
    }
    Path("both.yaml").write_text(yaml.safe_dump({"version": 1, "kind": "pipeline", "name": "both", "stages": stages}))
    told = planned(run, "both.yaml", "--no-probe")
    assert [(stage["name"], stage["state"]) for stage in told["stages"]] == [
        ("base", "done"),
        ("tune", "runs"),
        ("draw", "open"),
    ]
    assert told["stages"][2]["why"] == "what tune will make is not known yet"
    assert told["inputs"]["tune.init_from"]["ref"] == told["stages"][0]["outputs"][0]
    code, out, _ = run("plan", "both.yaml", "--no-probe")
    assert (code, "stage     base: pretrain unchanged, not run again" in out) == (0, True)


def test_the_embedded_extractor_is_not_trained_by_a_plan(spec: Path, run: Run) -> None:
    told = planned(run, "tiny.yaml", "-s", "metrics=[kid]")
    assert [(s["state"], s["why"]) for s in told["stages"]] == [
        ("open", "the extractor glyph-features is trained first")
    ]
    assert open_store().head("FORMAT.json") is None, "nothing was written"


def test_what_does_not_fit_is_told_before_torch_is_loaded(spec: Path) -> None:
    program = "import sys; from jobs.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    arguments = ["plan", "tiny.yaml", "-s", "resources.workers=64", "-s", "train.batch_size=64"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["6", "False"]
    assert "asks for 64 CPUs" in done.stderr
