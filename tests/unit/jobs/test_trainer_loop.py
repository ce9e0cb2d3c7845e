"""What the driver does when workers are lost: with Ray's part played by a script, so that every ending can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import trainer
from cluster.runs import Runs
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.store import open_store
from cluster.task import GanTask
from cluster.trainer import train_on_ray
from tlgan.errors import RunFailed

CRASH = ("crash", RunFailed("a worker died"), [])


class NoRay:
    def connect(self) -> None: ...


def play(
    endings: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str | int = 2,
    heard: list[Any] | None = None,
    **retry: Any,
) -> tuple[bool, list[int], list[set[str]], list[dict[str, Any]]]:
    """Result, workers of each attempt, nodes left out of each, stored events. The cluster has room for the largest size."""
    task = GanTask("x-1", str(tmp_path), {"train": {"batch_size": 48}}, str(tmp_path / "work"))
    asked: list[int] = []
    without: list[set[str]] = []

    def attempt(task: GanTask, rank: Any, resources: Any, workers: int, sizes: Any, gone: set[str], begun: Any) -> Any:
        asked.append(workers)
        without.append(set(gone))
        return endings.pop(0)

    monkeypatch.setattr(trainer, "_attempt", attempt)
    monkeypatch.setattr(trainer, "wait_for_room", lambda resources, sizes, *_: sizes[0])
    resources = ResourcesSpec.model_validate({"workers": workers})
    try:
        done = train_on_ray(NoRay(), task, resources, (heard if heard is not None else []).append, RetrySpec(**retry))  # type: ignore[arg-type]
    finally:
        events = list(Runs(open_store(str(tmp_path))).events("x-1"))
    return done, asked, without, events


def test_a_lost_worker_costs_a_restart_and_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked, _, events = play([CRASH, (None, None, [])], tmp_path, monkeypatch)
    assert done
    assert asked == [2, 2]
    (lost,) = events
    assert (lost["type"], lost["cause"], lost["workers"], lost["reason"]) == ("lost", "crash", 2, "a worker died")


def test_when_all_restarts_are_used_the_run_fails_with_the_last_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFailed, match="lost by a crash after 2 restarts; the last one: a worker died"):
        play([CRASH] * 9, tmp_path, monkeypatch, crashes=2)
    assert len(list(Runs(open_store(str(tmp_path))).events("x-1"))) == 3


def test_a_node_that_is_taken_away_is_not_counted_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endings = [("preemption", None, ["n1"]), ("preemption", None, ["n2"]), (None, None, [])]
    done, _, without, events = play(endings, tmp_path, monkeypatch, crashes=0)
    assert done, "none of them is a crash"
    assert without == [set(), {"n1"}, {"n1", "n2"}]
    assert [event["cause"] for event in events] == ["preemption"] * 2


def test_a_stop_is_no_failure_and_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked, _, events = play([("stop", None, [])], tmp_path, monkeypatch)
    assert (done, asked, events) == (False, [2], [])


def test_room_that_was_taken_by_others_makes_the_next_try_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = ("capacity", RunFailed("no room"), [])
    done, asked, _, _ = play([busy, busy, CRASH, (None, None, [])], tmp_path, monkeypatch, workers="2..6")
    assert done
    assert asked == [6, 4, 3, 6]


def test_each_event_is_heard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through the store, from where whoever follows the run hears it."""
    heard: list[dict[str, Any]] = []
    play([CRASH, (None, None, [])], tmp_path, monkeypatch, heard=heard)
    assert [event["type"] for event in heard] == ["lost"]
