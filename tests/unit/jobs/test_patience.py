"""A store that is away: what waits for it, what does not, and what is kept meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import events as module
from cluster import patience
from cluster.events import EventWriter
from cluster.patience import patiently
from cluster.runs import Runs
from cluster.stopping import stop_key, stop_signal
from cluster.store import open_store
from tlgan.errors import BackendError, Refused


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been slept; the clock moves by as much."""
    slept: list[float] = []
    begun = time.monotonic()
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: begun + sum(slept))
    monkeypatch.setattr(patience, "time", clock)  # not the module's own: other threads of this process sleep, too
    return slept


def failing(times: int, error: BackendError) -> Callable[[], str]:
    left = [error] * times

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    return work


def test_what_is_away_for_ten_minutes_is_waited_for(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    assert patiently(failing(43, BackendError("no route")), "the result") == "done"
    assert 600 <= sum(pauses) < 660
    assert max(pauses) == patience.LONGEST_PAUSE
    assert "the result waits for the store: no route" in caplog.text


def test_patience_ends_with_the_last_error(pauses: list[float]) -> None:
    with pytest.raises(BackendError, match="no route"):
        patiently(failing(1000, BackendError("no route")), "the result", patience=100)
    assert sum(pauses) == pytest.approx(100)


def test_a_refusal_is_not_asked_twice(pauses: list[float]) -> None:
    with pytest.raises(Refused):
        patiently(failing(1, Refused("wrong key")), "the result")
    assert pauses == []


class Away:
    """A store whose writes hang until `back` is set, and then fail `failures` times."""

    def __init__(self, store: Any, failures: int = 0) -> None:
        self.store, self.failures, self.back, self.tried = store, failures, threading.Event(), threading.Event()

    def put(self, key: str, data: bytes) -> None:
        self.tried.set()
        assert self.back.wait(60)
        if self.failures:
            self.failures -= 1
            raise BackendError("no route")
        self.store.put(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_events_and_grids_wait_for_the_store_and_the_run_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_SECONDS", 0.01)
    away, heard = Away(open_store(str(tmp_path)), failures=3), list[dict[str, Any]]()
    writer = EventWriter(away, "run-1", heard.append)  # type: ignore[arg-type]
    writer({"type": "started", "nimg": 0})
    assert away.tried.wait(60), "a thread is at it, and hangs"
    for nimg in range(1, 1201):
        writer({"type": "progress", "nimg": nimg})
    writer.grid(1200, b"png")
    assert len([event for event in heard if event["type"] == "progress"]) == 1200, "listeners hear at once"
    away.back.set()
    deadline = time.monotonic() + 60
    while len(Runs(away.store).grids("run-1")) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    writer.close()
    stored = list(Runs(away.store).events("run-1"))
    assert [event["nimg"] for event in stored if event["type"] == "progress"] == list(range(1, 1201))
    assert [event["type"] for event in stored if event["type"] == "grid"] == ["grid"]


def test_of_what_waits_too_long_the_oldest_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 700)
    away = Away(open_store(str(tmp_path)))
    writer = EventWriter(away, "run-1")  # type: ignore[arg-type]
    for nimg in range(1000):
        writer({"type": "progress", "nimg": nimg})
    away.back.set()
    writer.close()
    assert [event["nimg"] for event in Runs(away.store).events("run-1")] == list(range(300, 1000))


def test_asking_whether_to_stop_never_holds_a_step_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store answers once, then hangs, then says yes."""
    monkeypatch.setattr("cluster.stopping.ASK_EVERY_SECONDS", 0.01)
    store, back, hangs = open_store(str(tmp_path)), threading.Event(), threading.Event()
    answers = [store.head]

    def head(key: str) -> Any:
        if answers:
            return answers.pop()(key)
        hangs.set()
        assert back.wait(60)
        return store.head(key)

    class Slow:
        pass

    slow = Slow()
    slow.head = head  # type: ignore[attr-defined]
    asked = stop_signal(slow, "run-1", 1)  # type: ignore[arg-type]
    assert not asked()
    assert hangs.wait(60)
    begun = time.monotonic()
    assert not any(asked() for _ in range(1000))
    assert time.monotonic() - begun < 10, "a thousand questions while the store hangs"
    store.put(stop_key("run-1", 1), b"{}")
    back.set()
    deadline = time.monotonic() + 60
    while not asked():
        assert time.monotonic() < deadline
        time.sleep(0.01)
