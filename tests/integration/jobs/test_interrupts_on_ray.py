"""Ctrl-C and SIGTERM while Ray works: it reaches tlgan, not Ray's own handlers, and nothing unfinished is published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.specfile import parse_job
from jobs.execute import execute
from jobs.output import Context
from jobs.session import Session
from jobs.verbs.run import _polite
from tlgan.errors import RunStopped

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]
Events = list[tuple[str, dict[str, Any]]]


def interrupt_at(session: Session, events: Events, kind: str, **wanted: Any) -> None:
    """The next matching event is answered by a Ctrl-C, once, as from a terminal."""
    sent = threading.Event()

    def listen(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == kind and wanted.items() <= event.items() and not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGINT)

    session.listener = listen


def test_an_interrupted_sweep_publishes_nothing_and_keeps_what_ended(
    shared_ray: Any,
    session: Session,
    sweep: dict[str, Any],
    features: None,
    pretrain: Callable[..., Any],
    events: Events,
) -> None:
    execute(pretrain(), session)
    sweep["search"]["parallel"] = 1
    sweep["early_stop"] = {"scheduler": "none"}
    sweep["space"] = {"transfer.freeze_d": {"choice": [0, 1, 2]}}
    interrupt_at(session, events, "trial", state="succeeded")
    with pytest.raises(RunStopped), _polite(session, Context(quiet=True)):
        execute(parse_job(sweep), session)
    assert session.interrupted.is_set()
    record = session.runs.get("search")
    assert record.state == "stopped"
    assert session.artifacts.versions("found") == []
    states = {row["trial"]: row["state"] for row in session.runs.get_json(record.id, "leaderboard.json")}
    assert states["000"] == "succeeded"
    assert states["002"] == "pending", "a trial that was not begun is run by the next attempt"


def test_an_interrupted_training_on_workers_stops_with_a_checkpoint(
    shared_ray: Any, session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    interrupt_at(session, events, "started")
    with pytest.raises(RunStopped), _polite(session, Context(quiet=True)):
        execute(pretrain(resources__workers=1, train__kimg=400, metrics="[]"), session)
    assert session.interrupted.is_set()
    record = session.runs.get("tiny")
    assert record.state == "stopped"
    assert any(info.key.endswith("complete.json") for info in session.artifacts.store.list(f"runs/{record.id}/"))
    assert session.artifacts.versions("tiny-gan") == []


RAY_OF_ITS_OWN = """
import os, signal, sys, threading, time
from cluster.ray_session import RaySession

heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
with RaySession() as session:
    beside = threading.Thread(target=session.connect)  # as a stage of a pipeline does
    beside.start()
    beside.join()
    session.take_signals_back()
    os.killpg(0, signal.SIGTERM)
    time.sleep(1)
    assert heard == [signal.SIGTERM]
    ray = session.connect()
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
"""


def test_a_sigterm_to_the_whole_group_is_heard_by_tlgan_alone() -> None:
    """As `timeout` and launchers send it. Ray's processes live on, so that a checkpoint can be written; no stack is printed."""
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    command = [sys.executable, "-c", RAY_OF_ITS_OWN]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=environment, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    assert "SIGTERM received" not in done.stderr, done.stderr


def test_a_sigterm_to_the_process_and_to_its_group_is_one(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("jobs.verbs.run.time", SimpleNamespace(monotonic=lambda: now[0]))
    with _polite(session, Context(quiet=True)):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert session.interrupted.is_set()
        now[0] += 5
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
