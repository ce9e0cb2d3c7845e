"""Pages of runs that failed, were stopped or are under way, and of stores where things are missing."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.runs import Runs, new_record
from cluster.store import ArtifactStore
from jobs.reporting import collect
from jobs.reporting.training import history_of
from tlgan.report import render

from .conftest import DIGITS, PIPELINE, Made

Read = Callable[[str], Any]


def dead_process() -> int:
    """The id of a process that is no more."""
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_what_was_done_again_after_a_restart_counts_once() -> None:
    def progress(nimg: int, loss: float | None) -> dict[str, Any]:
        return {"type": "progress", "nimg": nimg, "seconds": nimg / 100, "stats": {"loss_g": loss, "logits_real": 1.0}}

    events = [
        {"type": "started", "nimg": 0, "total": 400, "workers": 2},
        progress(100, 9.0),
        progress(150, 9.0),
        {"type": "grid", "nimg": 150},
        {"type": "metric", "nimg": 150, "name": "kid", "value": 9.0},
        {"type": "resumed", "nimg": 120},
        progress(160, 1.0),
        progress(160, 2.0),
        {"type": "metric", "nimg": 160, "name": "kid", "value": 1.0},
        progress(200, None),
    ]
    history = history_of(events)
    assert list(history.losses) == ["loss_g"]
    assert list(history.losses["loss_g"]) == [100, 160, 200]
    assert history.losses["loss_g"][160] == 2.0
    assert np.isnan(history.losses["loss_g"][200])
    assert history.metrics == {"kid": {160: 1.0}}
    assert (history.grids, history.nimg, history.total, history.workers, history.seconds) == (set(), 200, 400, 2, 2.0)
    again = history_of([*events, {"type": "started", "nimg": 0, "total": 400, "workers": 1}, progress(50, 3.0)])
    assert (again.losses, again.metrics, again.nimg) == ({"loss_g": {50: 3.0}}, {}, 50)


def test_a_missed_gate_fails_the_pipeline_and_the_page_says_which_stages_were_done(
    spoilt: Made, run_job: Callable[..., str], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = copy.deepcopy(PIPELINE)
    spec["stages"]["eval"]["run"]["gate"] = {"kid": "< -1000"}
    report = collect(spoilt.artifacts, run_job(spoilt.artifacts, spec))
    assert report.state == "failed"
    assert report.outcome.startswith(
        "Of its 4 stages, features, base and tune are done, eval failed. A generator of 32 px "
    )
    assert report.outcome.endswith("It missed the gate, which asks for KID < -1000.")
    assert "gate failed: kid is" in (report.reason or "")
    assert [n.note for n in report.numbers if n.label == "Time"] == ["3 of 4 stages taken from the store"]
    assert next(row for row in report.evaluations[0].rows if row.name == "kid").passed is False
    assert "missed" in "".join(read(render(report)).words)


def test_a_pipeline_under_way_shows_what_there_is(spoilt: Made, read: Read) -> None:
    runs = Runs(spoilt.artifacts.store)
    shutil.rmtree(spoilt.store / "runs" / spoilt.runs["eval"])
    runs.update(spoilt.runs["tune"], state="running", outputs=[], finished=None, facts={}, pid=os.getpid())
    runs.update(spoilt.pipeline, state="running", outputs=[], finished=None, facts={}, pid=os.getpid())
    report = collect(spoilt.artifacts, spoilt.pipeline)
    assert report.outcome.startswith(
        "Of its 4 stages, features and base are done, tune is running, eval has not begun."
    )
    assert [run.name for run in report.runs] == ["search, trial 000", "base", "digit-features"]
    assert report.runs[0].kind == "best so far, out of 3 trials"
    assert "search" in {node.label for node in report.lineage}
    assert report.reason is None
    read(render(report))
    sweep = collect(spoilt.artifacts, spoilt.runs["tune"])
    assert sweep.outcome.startswith("3 of 3 trials are done; the best so far is 000 with ")


def test_a_run_whose_process_is_gone_says_how_to_go_on(spoilt: Made) -> None:
    runs, base = Runs(spoilt.artifacts.store), spoilt.runs["base"]
    gone = dead_process()
    runs.update(base, state="running", outputs=[], finished=None, pid=gone)
    report = collect(spoilt.artifacts, base)
    assert report.outcome == "0.6 of 0.6 kimg are done."
    assert "running the same spec again resumes it" in (report.reason or "").lower()
    assert report.samples is not None
    assert report.samples.caption == "after 0.608 kimg"
    shutil.rmtree(spoilt.store / "runs" / spoilt.runs["eval"])
    runs.update(spoilt.runs["tune"], state="running", outputs=[], finished=None, pid=gone)
    runs.update(spoilt.pipeline, state="stopped", reason="stopped by a person", outputs=[], facts={})
    words = collect(spoilt.artifacts, spoilt.pipeline).outcome
    assert words.startswith("Of its 4 stages, features is done, base was interrupted, tune and eval have not begun.")


NOTHING_YET = {
    "pretrain": "No image was seen yet.",
    "classifier": "No image was seen yet.",
    "sweep": "No trial has begun.",
    "pipeline": "No stage has begun.",
}


@pytest.mark.parametrize("kind", ["pretrain", "sweep", "evaluate", "classifier", "pipeline", "generate"])
@pytest.mark.parametrize("state", ["failed", "pending", "stopped", "running"])
def test_a_bare_record_is_a_page(kind: str, state: Any, tmp_path: Path, read: Read) -> None:
    artifacts = ArtifactStore(str(tmp_path / "store"))
    record = new_record("bare-0000", "bare", kind, state=state, reason="no space left on <device>", spec={"kind": kind})
    Runs(artifacts.store).create(record)
    report = collect(artifacts, "bare")
    assert report.outcome == NOTHING_YET.get(kind, "")
    assert (report.samples, report.targets, report.runs[1:], report.data, report.evaluations) == (
        None,
        None,
        (),
        (),
        (),
    )
    assert "no space left on <device>" in "".join(read(render(report)).words)


DAMAGE = {
    "events": "runs/*/events",
    "events of trials": "runs/*/trials/*/events",
    "grids": "runs/*/grids",
    "trials": "runs/*/trials",
    "leaderboard": "runs/*/leaderboard.json",
    "all blobs": "blobs",
    "the pretraining's manifest": "versions/zeros32",
    "all manifests": "versions",
    "aliases": "aliases",
    "the classifier's run": "runs/digit-features-*",
    "the sweep's run": "runs/search-*",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_missing_is_left_out(spoilt: Made, what: str, read: Read) -> None:
    whole = read(render(collect(spoilt.artifacts, spoilt.pipeline)))
    found = list(spoilt.store.glob(DAMAGE[what]))
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = collect(ArtifactStore(str(spoilt.store)), spoilt.pipeline)
    page = read(render(report))
    assert report.outcome
    assert page.words != whole.words


def test_a_damaged_picture_is_not_shown(spoilt: Made) -> None:
    for blob in (spoilt.store / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b"\x89PNG"):
            blob.chmod(0o644)
            blob.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    report = collect(spoilt.artifacts, spoilt.pipeline)
    assert report.samples is None
    assert report.targets is not None


def test_skipped_files_are_named_and_changed_images_are_not_passed_off_as_those_of_the_run(
    tmp_path: Path, run_job: Callable[..., str]
) -> None:
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    for i in range(24):
        (folder / f"kind{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(folder / f"kind{i % 2}" / f"{i}.png")
    (folder / "kind0" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    artifacts = ArtifactStore(str(tmp_path / "store"))
    data = {"source": "folder", "path": str(folder)}
    run = run_job(artifacts, {"kind": "classifier", "name": "pair", "data": data, "train": {"kimg": 0.1}})
    (facts,) = collect(artifacts, run).data
    assert (facts.name, facts.count, facts.labels) == ("photos", 24, {"kind0": 12, "kind1": 12})
    assert [name.rpartition("/")[2] for name, _ in facts.skipped] == ["torn.png"]
    assert facts.png
    (folder / "kind1" / "1.png").unlink()
    assert collect(artifacts, run).data[0].png is None
    shutil.rmtree(folder)
    later = collect(artifacts, run)
    assert (later.data[0].png, later.data[0].count, later.targets) == (None, 24, None)


def test_runs_of_the_same_name_but_another_spec_are_no_stages(spoilt: Made, run_job: Callable[..., str]) -> None:
    """A pipeline that failed early does not borrow results of an earlier one."""
    spec = {"version": 1, "kind": "pipeline", "name": "other", "stages": copy.deepcopy(PIPELINE["stages"])}
    spec["stages"]["base"]["run"]["train"]["kimg"] = 64.0
    spec["stages"]["base"]["run"]["data"] = {**DIGITS, "resolution": 64}
    record = new_record("other-0000", "other", "pipeline", state="failed", reason="no", spec=spec, started="2020-01-01")
    Runs(spoilt.artifacts.store).create(record)
    report = collect(spoilt.artifacts, "other-0000")
    assert report.outcome.startswith(
        "Of its 4 stages, features is done, base, tune and eval have not begun. A classifier "
    )
    assert json.dumps(report.without_pictures().to_json()).count("zeros32@") == 0
