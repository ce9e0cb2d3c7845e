"""How long workers wait for room, and from when on that is said: with what is free played by a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import capacity
from cluster.capacity import Demand, wait_for_room
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.stopping import stop_key
from cluster.store import open_store
from cluster.task import GanTask
from tlgan.errors import RunFailed

Wait = Callable[..., tuple[int | None, list[dict[str, Any]], int]]


@pytest.fixture
def wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Waits for four workers or two, with so many free at one look after another. What was found, the events, and how
    often the autoscaler was shown the demand."""

    def waiting(*free: int, **retry: Any) -> tuple[int | None, list[dict[str, Any]], int]:
        looks, told, shown = list(free), list[dict[str, Any]](), list[int]()
        monkeypatch.setattr(capacity, "LOOK_EVERY", 0.0)
        monkeypatch.setattr(capacity, "free_nodes", lambda gone: [])
        monkeypatch.setattr(capacity, "places", lambda resources, nodes: looks.pop(0) if len(looks) > 1 else looks[0])
        monkeypatch.setattr(Demand, "show", lambda self: shown.append(len(self.bundles)))
        resources, task = ResourcesSpec(workers=4), GanTask("x-1", str(tmp_path), {}, "none")
        store = open_store(str(tmp_path))
        found = wait_for_room(resources, [4, 2], set(), store, task, RetrySpec(**retry), told.append)  # type: ignore[arg-type]
        return found, told, len(shown)

    return waiting


@pytest.mark.parametrize(("free", "found"), [(5, 4), (4, 4), (3, 2), (2, 2)])
def test_the_largest_size_that_fits_is_taken_at_once(wait: Wait, free: int, found: int) -> None:
    assert wait(free) == (found, [], 0)


def test_what_has_just_ended_may_give_its_room_back_first(wait: Wait) -> None:
    assert wait(0, 4) == (4, [], 0)


def test_waiting_is_said_once(wait: Wait) -> None:
    event = {"type": "waiting", "for": "room on the cluster", "workers": 2, "room": 1}
    assert wait(0, 1, 1, 0, 2) == (2, [event], 1)


def test_a_run_that_is_stopped_waits_no_longer(wait: Wait, tmp_path: Path) -> None:
    open_store(str(tmp_path)).put(stop_key("x-1", 1), b"{}")
    assert wait(0) == (None, [], 0)


def test_no_room_in_time_is_an_error_that_says_how_much_there_is(wait: Wait) -> None:
    with pytest.raises(RunFailed, match=r"no room for 2 workers within 0\.0001 minutes, only for 1") as raised:
        wait(1, wait_minutes=0.0001)
    assert "retry.wait_minutes" in str(raised.value.hint)
