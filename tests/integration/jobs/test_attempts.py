"""A run has one attempt that counts: who may start it while it runs elsewhere, and what an attempt that was taken over can do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.alive import SILENT_SECONDS, Heartbeat, seconds_since_sign
from cluster.runs import RunRecord
from cluster.specfile import parse_job
from cluster.store import open_store
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import BackendError, Conflict

ROOT = Path(__file__).parents[3]
SPEC = {
    "kind": "pretrain",
    "name": "tiny",
    "data": {"source": "digits"},
    "model": {"width": 8, "latent_dim": 16},
    "train": {"kimg": 0.5, "batch_size": 32},
    "output": {"artifact": "tiny-gan"},
}


def silence(session: Session, record: RunRecord, seconds: float) -> None:
    """As if the last sign of life of a run were so old."""
    sign = Path(session.artifacts.url.removeprefix("file://")) / f"runs/{record.id}/alive/{record.attempt}.json"
    then = time.time() - seconds
    os.utime(sign, (then, then))


def test_an_attempt_that_was_taken_over_publishes_nothing(session: Session, tmp_path: Path) -> None:
    """Its machine seems to be gone: it is stopped, with its record and its last sign of life."""
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    command = [
        sys.executable,
        str(Path(__file__).parent / "asleep.py"),
        session.artifacts.url,
        str(tmp_path / "spec.json"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TLGAN_CACHE": str(tmp_path / "its-cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            asleep = session.runs.update(session.runs.get("tiny").id, host="elsewhere")
            with pytest.raises(Conflict, match=rf"on elsewhere \(process {child.pid}\), last sign of life \d+ s ago"):
                execute(parse_job(SPEC), session)
            silence(session, asleep, SILENT_SECONDS + 30)
            record = execute(parse_job(SPEC), session)
            drafts = {info.key for info in session.artifacts.store.list(f"runs/{record.id}/draft")}
        finally:
            os.kill(child.pid, signal.SIGCONT)
        said, _ = child.communicate(timeout=120)
    assert child.returncode == Conflict.exit_code, said
    assert "taken over by attempt 2" in said
    assert drafts == {f"runs/{record.id}/draft-{n}.json" for n in (1, 2)}
    after = session.runs.get("tiny")
    assert (after.state, after.attempt, after.outputs) == ("succeeded", 2, record.outputs)
    assert [version.ref for version in session.artifacts.versions("tiny-gan")] == [record.outputs[0]["ref"]]
    ends = [event for event in session.runs.events(record.id) if event["type"] == "run" and event["state"] != "running"]
    assert [event["state"] for event in ends] == ["succeeded"]
    assert not list(session.artifacts.store.list(f"runs/{record.id}/alive/")), "both said goodbye"
    assert not [info.key for info in session.artifacts.store.list("leases/") if info.key.endswith(".json")]


def test_a_run_of_another_machine_without_signs_is_taken_up(session: Session, pretrain: Callable[..., Any]) -> None:
    """As a tlgan of before left it, or one whose last sign was removed."""
    record = execute(pretrain(train__kimg=0.5), session)
    session.runs.update(record.id, state="running", host="elsewhere")
    assert execute(pretrain(train__kimg=0.5), session).attempt == 2


def test_a_dead_process_on_this_machine_is_not_waited_for(session: Session, pretrain: Callable[..., Any]) -> None:
    record = execute(pretrain(train__kimg=0.5), session)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    session.runs.update(record.id, state="running", pid=ended.pid, process="")
    session.artifacts.store.put(f"runs/{record.id}/alive/1.json", b"{}")
    assert execute(pretrain(train__kimg=0.5), session).attempt == 2


def test_a_heart_beats_until_the_end(session: Session, tmp_path: Path, pretrain: Callable[..., Any]) -> None:
    signs: list[float | None] = []

    def listen(run: str, event: dict[str, Any]) -> None:
        if event["type"] == "trained":
            signs.append(seconds_since_sign(session.artifacts.store, session.runs.get(run)))

    session.listener = listen
    record = execute(pretrain(train__kimg=0.5), session)
    assert len(signs) == 1
    assert signs[0] is not None
    assert seconds_since_sign(session.artifacts.store, record) is None
    store = open_store(str(tmp_path / "other"))
    with Heartbeat(store, "tiny-1", 1, period=0.05):
        first = store.get("runs/tiny-1/alive/1.json")
        store.delete("runs/tiny-1/alive/1.json")
        deadline = time.monotonic() + 10
        while store.head("runs/tiny-1/alive/1.json") is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert json.loads(first) == {"host": socket.gethostname(), "pid": os.getpid()}


def test_a_store_that_is_away_does_not_stop_the_heart(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(key: str, data: bytes) -> None:
        raise BackendError("no route")

    monkeypatch.setattr(session.artifacts.store, "put", away)
    with Heartbeat(session.artifacts.store, "tiny-1", 1):
        pass
    assert "no sign of life could be given: no route" in caplog.text
