"""`tlgan resume` of an attached run: the same run goes on, with the inputs it began with, or says what has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.runs import Runs
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import RunStopped

Run = Callable[..., tuple[int, str, str]]


def stopped_at_a_checkpoint(job: Any) -> str:
    with Session(ArtifactStore(open_store())) as session:
        session.listener = lambda run, event: session.interrupted.set() if event["type"] == "checkpoint" else None
        with pytest.raises(RunStopped):
            execute(job, session)
        return session.runs.get("tiny").id


def pictures(folder: Path, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def test_it_goes_on_from_another_folder(
    spec: Path, job: Callable[..., Any], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The spec named its images relative to a folder that is not the current one any more."""
    pictures(Path("cats"), seed=0)
    run_id = stopped_at_a_checkpoint(job(data__source="folder", data__path="cats", checkpoint__every_kimg=0.1))
    assert f"next      tlgan resume {run_id}" in run("show", run_id)[1]
    monkeypatch.setenv("TLGAN_STORE", open_store().url)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert run("resume", run_id, "-s", "train.seed=3")[0] == 4
    code, out, err = run("resume", run_id)
    assert code == 0, err
    record = Runs(open_store()).get(run_id)
    assert (record.state, record.attempt) == ("succeeded", 2)
    assert out.strip() == record.outputs[0]["ref"]
    assert any(event["type"] == "resumed" for event in Runs(open_store()).events(run_id))
    code, _, err = run("resume", run_id)
    assert (code, "has succeeded: nothing is left to do" in err) == (4, True)


def test_other_images_are_another_run(spec: Path, job: Callable[..., Any], run: Run) -> None:
    pictures(Path("cats"), seed=0)
    run_id = stopped_at_a_checkpoint(job(data__source="folder", data__path="cats", checkpoint__every_kimg=0.1))
    was = Runs(open_store()).get(run_id).inputs["data"]["digest"][:16]
    pictures(Path("cats"), seed=1)
    code, _, err = run("resume", run_id)
    assert code == 4
    assert "it would make something else: input data is" in err
    assert f"and was {was}" in err


def test_other_code_is_another_run(
    spec: Path, job: Callable[..., Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stopped_at_a_checkpoint(job(checkpoint__every_kimg=0.1))
    monkeypatch.setattr("jobs.pin.code_digest", lambda: "0" * 64)
    code, _, err = run("resume", run_id)
    assert (code, "the code of tlgan has changed" in err) == (4, True)
    assert parse_job(Runs(open_store()).get(run_id).spec).name == "tiny"
