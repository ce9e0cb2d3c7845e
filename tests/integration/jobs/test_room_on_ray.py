"""Waiting for room on a cluster, where Ray's autoscaler sees what is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from cluster.capacity import wait_for_room
from cluster.events import EventWriter
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.task import GanTask
from jobs.session import Session

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]


def pending(ray: Any, but: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Groups that wait, by id, without those that other tests left waiting."""
    table = ray.util.placement_group_table()
    return {name: group for name, group in table.items() if group["state"] == "PENDING" and name not in but}


def test_what_is_waited_for_can_be_seen_and_is_free_when_it_is_there(shared_ray: Any, session: Session) -> None:
    ray = shared_ray
    cpus = int(ray.cluster_resources()["CPU"])

    @ray.remote(num_cpus=cpus)  # type: ignore[untyped-decorator]
    class Busy:
        def ready(self) -> bool:
            return True

    busy = Busy.remote()
    assert ray.get(busy.ready.remote())
    others = set(pending(ray))
    task = GanTask(run="tiny-1", store=session.artifacts.url, recipe={}, workdir="none")
    resources, store = ResourcesSpec(workers=cpus), session.artifacts.store
    found: list[int | None] = []
    teller = EventWriter(store, task.run)

    def wait() -> None:
        found.append(wait_for_room(resources, [cpus], set(), store, task, RetrySpec(), teller))

    waiting = threading.Thread(target=wait)
    waiting.start()
    deadline = time.monotonic() + 60
    while not pending(ray, others):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (group,) = pending(ray, others).values()
    assert list(group["bundles"].values()) == [{"CPU": 1.0}] * cpus
    assert not found
    ray.kill(busy)
    waiting.join(60)
    teller.close()
    assert found == [cpus]
    assert not pending(ray, others)
    another = Busy.remote()
    assert ray.get(another.ready.remote(), timeout=60), "the room is there for whoever comes next"
    ray.kill(another)
