"""The same run asked for twice at once, and the ways to end a pipeline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.runs import Runs, birth_of, new_record
from cluster.specfile import parse_job
from cluster.stopping import stop_key
from cluster.store import open_store
from jobs.cli import main
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import BackendError, Conflict, RunFailed, RunStopped

Events = list[tuple[str, dict[str, Any]]]


def tiny(name: str, **train: Any) -> dict[str, Any]:
    return {
        "kind": "pretrain",
        "name": name,
        "data": {"source": "digits"},
        "model": {"width": 8, "latent_dim": 16},
        "train": {"kimg": 0.5, "batch_size": 32, **train},
    }


def test_stages_that_need_the_same_run_share_it(session: Session, pretrain: Callable[..., Any], events: Events) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: execute(pretrain(train__kimg=0.5), session), range(2))
    assert first.id == second.id
    assert sorted(event["type"] for _, event in events if event["type"] in ("started", "cached")) == [
        "cached",
        "started",
    ]
    assert len(session.artifacts.versions("tiny-gan")) == 1


def test_a_process_that_comes_a_moment_too_late_is_told(
    session: Session, pretrain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record appears between the look and the creation; or it is taken up between the look and the change."""
    record = execute(pretrain(train__kimg=0.5), session)
    other = {"state": "running", "pid": 1, "process": birth_of(1)}
    session.fresh = True
    find = session.runs.find
    monkeypatch.setattr(session.runs, "find", lambda run: session.runs.update(run, **other) and None)
    with pytest.raises(Conflict, match=r"running already \(process 1\)"):
        execute(pretrain(train__kimg=0.5), session)
    session.runs.update(record.id, state="failed")
    monkeypatch.setattr(session.runs, "find", lambda run: (find(run), session.runs.update(run, **other))[0])
    with pytest.raises(Conflict, match=r"running already \(process 1\)"):
        execute(pretrain(train__kimg=0.5), session)
    assert session.runs.get("tiny").pid == 1, "the record is the other's"


def test_fresh_does_not_resume_a_stopped_run(session: Session, pretrain: Callable[..., Any], events: Events) -> None:
    session.listener = lambda run, event: session.interrupted.set() if event["type"] == "checkpoint" else None
    with pytest.raises(RunStopped):
        execute(pretrain(checkpoint__every_kimg=0.1), session)
    session.interrupted.clear()
    session.fresh = True
    session.listener = lambda run, event: events.append((run, event))
    execute(pretrain(checkpoint__every_kimg=0.1), session)
    assert "resumed" not in [event["type"] for _, event in events]


def test_events_of_a_run_are_in_the_order_they_happened(session: Session, pretrain: Callable[..., Any]) -> None:
    record = execute(pretrain(train__kimg=0.5), session)
    stored = list(session.runs.events(record.id))
    assert (stored[0]["type"], stored[0]["state"]) == ("run", "running")
    assert (stored[-1]["type"], stored[-1]["state"]) == ("run", "succeeded")


def test_the_first_error_is_told_when_the_store_goes_away_too(
    session: Session, pretrain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise BackendError("no route")

    monkeypatch.setattr(session.runs, "update", away)
    with pytest.raises(RunFailed, match="diverged"):
        execute(pretrain(train__lr_g=1e30, train__lr_d=1e30), session)


def test_nothing_is_begun_after_an_interrupt(session: Session, pretrain: Callable[..., Any]) -> None:
    session.interrupted.set()
    with pytest.raises(RunStopped, match="pretrain tiny was not begun"):
        execute(pretrain(), session)
    assert session.runs.list() == []


def test_a_classifier_stops_when_asked(session: Session) -> None:
    spec = {"kind": "classifier", "name": "c", "data": {"source": "digits"}, "train": {"kimg": 400, "batch_size": 64}}
    session.listener = lambda run, event: session.interrupted.set() if event["type"] == "progress" else None
    with pytest.raises(RunStopped):
        execute(parse_job(spec), session)
    assert session.runs.get("c").state == "stopped"


def test_stopping_a_pipeline_stops_its_stages(session: Session) -> None:
    stages = {"one": {"run": tiny("one", kimg=400)}, "two": {"run": tiny("two"), "needs": ["one"]}}
    whole: list[str] = []

    def ask(run: str, event: dict[str, Any]) -> None:
        if event["type"] == "run" and event["kind"] == "pipeline":
            whole.append(run)
        if event["type"] == "started":
            session.artifacts.store.put(stop_key(whole[0], 1), b"{}")

    session.listener = ask
    with pytest.raises(RunStopped):
        execute(parse_job({"kind": "pipeline", "name": "all", "stages": stages}), session)
    assert {record.name: record.state for record in session.runs.list()} == {"all": "stopped", "one": "stopped"}


def test_the_second_ctrl_c_ends_a_pipeline_at_once(workdir: Path) -> None:
    """The stage computes a step that takes long; nobody waits for it."""
    stage = tiny("one", kimg=40000, batch_size=60000)
    Path("all.yaml").write_text(json.dumps({"kind": "pipeline", "name": "all", "stages": {"one": {"run": stage}}}))
    command = [sys.executable, "-m", "jobs.cli", "run", "all.yaml", "--store", "store"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=workdir) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "training for" in line)
        process.send_signal(signal.SIGINT)  # two of them before the first is answered would count as one
        next(line for line in process.stderr if "stopping at the next step" in line)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        said = process.stderr.read()
        assert process.wait(30) == 130, said
    assert time.monotonic() - begun < 15
    assert "Traceback" not in said
    states = {record.name: record.state for record in Runs(open_store(str(workdir / "store"))).list()}
    assert states == {"all": "stopped", "one": "stopped"}


def test_a_run_whose_process_is_gone_can_not_be_stopped(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = new_record("tiny-1", "tiny", "pretrain", state="running")
    Runs(open_store("store")).create(record.model_copy(update={"pid": os.getpid(), "process": "00000000-1"}))
    assert main(["stop", "tiny", "--store", "store"]) == 4
    assert "its process is gone" in capsys.readouterr().err
