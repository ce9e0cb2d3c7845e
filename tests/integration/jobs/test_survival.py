"""A run in this process on bad days: a full disk, SIGTERM, a store that is away, an end that was recorded already."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.store import ArtifactStore
from jobs.execute import execute
from jobs.output import Context
from jobs.session import Session
from jobs.verbs.run import _polite
from tlgan import checkpoint
from tlgan.errors import BackendError, RunFailed, RunStopped

Events = list[tuple[str, dict[str, Any]]]


def at_progress(session: Session, events: Events, images: int, act: Callable[[], None]) -> None:
    """Does `act` once, as soon as so many images are seen."""
    done = threading.Event()

    def listen(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == "progress" and event["nimg"] >= images and not done.is_set():
            done.set()
            act()

    session.listener = listen


def weights(session: Session, name: str = "tiny-gan") -> dict[str, str]:
    return {file.path: file.sha256 for file in session.artifacts.resolve(f"{name}:latest").files}


def test_a_full_disk_is_the_recorded_reason(
    session: Session, pretrain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunFailed, match="no room left on the disk of"):
        execute(pretrain(), session)
    record = session.runs.get("tiny")
    assert record.state == "failed"
    assert "no room left on the disk of" in str(record.reason)


def test_sigterm_leaves_a_checkpoint_that_nobody_planned_and_the_same_weights(
    session: Session, pretrain: Callable[..., Any], events: Events, tmp_path: Path
) -> None:
    job = pretrain(train__kimg=4, checkpoint__every_kimg=3)
    at_progress(session, events, 512, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped), _polite(session, Context(quiet=True)):
        execute(job, session)
    record = session.runs.get("tiny")
    assert (record.state, record.reason) == ("stopped", "ended by SIGTERM")
    stored = [event["nimg"] for _, event in events if event["type"] == "stored"]
    assert len(stored) == 1
    assert 512 <= stored[0] < 3000
    session.interrupted.clear()
    events.clear()
    assert execute(job, session).state == "succeeded"
    assert [event["nimg"] for _, event in events if event["type"] == "resumed"] == stored
    with Session(ArtifactStore(f"file://{tmp_path}/whole")) as other:
        execute(job, other)
        assert weights(other) == weights(session)


def test_a_store_that_is_away_while_training_loses_nothing(
    session: Session, pretrain: Callable[..., Any], events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from 512 images until the result waits for it."""
    monkeypatch.setattr("cluster.patience.FIRST_PAUSE", 0.1)
    store, away = session.artifacts.store, threading.Event()
    put, tried = store.put, list[str]()

    def refuse(key: str, data: Any, **more: Any) -> None:
        if away.is_set():
            tried.append(key)
            if any("/pin-run" in one for one in tried):  # the result comes to the door: now it opens
                away.clear()
            raise BackendError("no route to the store")
        put(key, data, **more)

    monkeypatch.setattr(type(store), "put", lambda self, key, data, **more: refuse(key, data, **more))
    at_progress(session, events, 512, away.set)
    record = execute(pretrain(train__kimg=4, checkpoint__every_kimg=1), session)
    assert record.state == "succeeded"
    assert any("/checkpoints/" in key for key in tried), "checkpoints were tried, and stayed on this disk"
    told = [event["nimg"] for _, event in events if event["type"] == "progress"]
    stored = [event["nimg"] for event in session.runs.events(record.id) if event["type"] == "progress"]
    assert stored == told
    assert stored[-1] == 4000


def test_an_end_that_is_recorded_is_not_recorded_anew(
    session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    """As when a person ended the run at once, and its process wakes up later."""

    def end() -> None:
        session.runs.update(events[-1][0], state="stopped", reason="ended at once by a person")

    at_progress(session, events, 512, end)
    execute(pretrain(), session)
    record = session.runs.get("tiny")
    assert (record.state, record.reason) == ("stopped", "ended at once by a person")
