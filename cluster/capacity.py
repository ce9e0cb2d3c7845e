"""Room on a Ray cluster right now: waiting until there is enough of it, and noticing when there is more."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection
from typing import Any

from cluster.events import EventWriter
from cluster.room import Node, groups_here, grown, room
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.stopping import resize_key, stop_key
from cluster.store.base import Store
from cluster.task import GanTask
from tlgan.errors import BackendError, RunFailed

log = logging.getLogger("tlgan.capacity")
LOOK_EVERY = 1.0
GROW_EVERY = 15.0
"""Seconds between two looks for more room, which must be there both times; a change of workers costs half a minute."""
SETTLED = 3.0
"""Seconds after which Ray shows room that was given back as free."""
NODES_COME = 6
"""Looks without more room after which no node is waited for any more."""


def free_nodes(without: set[str]) -> list[Node]:
    """What is free on each node of the cluster, but for those that are about to be taken away."""
    import ray
    from ray._private.state import available_resources_per_node  # the public calls know sums over all nodes only

    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - without  # type: ignore[no-untyped-call]
    free = available_resources_per_node()  # type: ignore[no-untyped-call]
    return [dict(amounts) for node, amounts in free.items() if node in alive]


def places(resources: ResourcesSpec, nodes: list[Node]) -> int:
    """How many workers fit on what is free."""
    worker = {"CPU": float(resources.cpus_per_worker), "GPU": float(resources.gpus_per_worker)}
    return sum(room(node, worker) for node in nodes)


def wait_for_room(
    resources: ResourcesSpec,
    sizes: list[int],
    gone: set[str],
    store: Store,
    task: GanTask,
    retry: RetrySpec,
    tell: EventWriter,
) -> int | None:
    """The largest of `sizes` (largest first) for which there is room, as soon as there is for one; None when the run is
    stopped meanwhile. Raises `RunFailed` after `retry.wait_minutes`."""
    end, looks = time.monotonic() + 60 * retry.wait_minutes, 0
    with Demand(resources, sizes[-1]) as demand:
        while True:
            free = max(sizes[-1] if demand.met() else 0, places(resources, free_nodes(gone)))
            if fits := [size for size in sizes if size <= free]:
                return fits[0]
            with contextlib.suppress(BackendError):
                if store.head(stop_key(task.run, task.attempt)) is not None:
                    return None
            if time.monotonic() >= end:
                raise RunFailed(
                    f"there was no room for {sizes[-1]} workers within {retry.wait_minutes:g} minutes, only for {free}",
                    hint="the same command tries again; retry.wait_minutes says how long",
                )
            looks += 1
            if looks == 2:  # what has just ended is given back in a moment
                demand.show()
                tell({"type": "waiting", "for": "room on the cluster", "workers": sizes[-1], "room": free})
            time.sleep(LOOK_EVERY)


class Demand:
    """Workers that wait for room, where Ray's autoscaler sees it: a placement group. Without an autoscaler it does no harm.

    Ray reserves the room in one piece as soon as there is some. It is given back before the workers are started.
    """

    def __init__(self, resources: ResourcesSpec, workers: int) -> None:
        worker = {"CPU": float(resources.cpus_per_worker), "GPU": float(resources.gpus_per_worker)}
        self.bundles = [{what: amount for what, amount in worker.items() if amount} for _ in range(workers)]
        self._group: Any = None

    def show(self) -> None:
        from ray.util.placement_group import placement_group

        if self._group is None:
            self._group = placement_group(self.bundles)

    def held(self) -> bool:
        """Whether the room is there, reserved."""
        from ray.util.placement_group import placement_group_table

        if self._group is None:
            return False
        state = placement_group_table(self._group).get("state")  # `wait(0)` of a group that is there is often False
        return bool(state == "CREATED")

    def met(self) -> bool:
        """Whether the room is there. It is free then, for whoever asks next."""
        if not self.held():
            return False
        self._end()
        return True

    def __enter__(self) -> Demand:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        from ray.util.placement_group import remove_placement_group

        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None


class Growth:
    """While it lasts, asks the workers to leave once there is room for more of them. Does nothing at the largest size.

    On a cluster that grows, what it lacks for the largest size that it can ever hold waits for room, so that Ray's autoscaler
    starts the nodes. Room that came is reserved until the workers have left, which they are asked to when all of it is there or
    no more comes. `begun`: launches whose workers train, for before that they need the room themselves.
    """

    def __init__(
        self,
        task: GanTask,
        resources: ResourcesSpec,
        workers: int,
        sizes: list[int],
        gone: set[str],
        begun: Collection[str],
    ) -> None:
        self.task, self.resources, self.gone, self.begun = task, resources, gone, begun
        self.workers, self.larger = workers, [size for size in sizes if size > workers]
        self._before, self._looks, self._reserved = 0, 0, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tlgan-growth")

    def __enter__(self) -> Growth:
        if self.larger:
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._reserved:
            time.sleep(SETTLED)

    def _work(self) -> None:
        demands: list[Demand] | None = None
        with contextlib.ExitStack() as stack:
            while not self._over.wait(GROW_EVERY):
                try:
                    if self.task.launch not in self.begun:
                        continue
                    if demands is None:
                        demands = [stack.enter_context(Demand(self.resources, 1)) for _ in range(self._missing())]
                    if self._has_grown(demands):
                        self.task.open_store().put(resize_key(self.task.run, self.task.launch), b"{}")
                        self._over.wait()
                except Exception as error:
                    log.warning("can't look for more room: %s", error)

    def _missing(self) -> int:
        """Workers to ask the autoscaler for."""
        import ray

        if not (groups := groups_here()):
            return 0
        alive = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        most = places(self.resources, grown(alive, groups))
        return max((size for size in self.larger if size <= most), default=self.workers) - self.workers

    def _has_grown(self, demands: list[Demand]) -> bool:
        """Whether there has been room for a larger size for some looks: two, or while nodes may still come, more."""
        for demand in demands:
            demand.show()
        held = sum(demand.held() for demand in demands)
        self._reserved = held > 0
        room = self.workers + held + places(self.resources, free_nodes(self.gone))
        fits = max((size for size in self.larger if size <= room), default=0)
        self._looks = self._looks + 1 if 0 < fits <= self._before else 0
        self._before = fits
        return self._looks >= (1 if held == len(demands) else NODES_COME)
