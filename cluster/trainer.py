"""Data-parallel training by Ray Train (V2): a `TorchTrainer`, `cluster.worker.work` in every worker, and another one
whenever that ended before its end, by the rules of `cluster.restarts`.

Ray starts the workers and forms the process group; the state to go on from is in our checkpoints, the results are in our
store. Ray's own storage holds nothing but its bookkeeping. The controller's own restarts are off: each time it is decided
here anew how many workers there is room for.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from cluster.capacity import Growth, wait_for_room
from cluster.discard import discard
from cluster.events import Event, EventWriter, Follower
from cluster.patience import patiently
from cluster.ray_session import RaySession
from cluster.restarts import CAPACITY, STOP, Restarts, cause_of, ending_of
from cluster.runs import Runs
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.stopping import resize_key
from cluster.task import GanTask
from cluster.waiting import away_from_main
from cluster.worker import error_name, left_name, work
from tlgan import errors
from tlgan.errors import BackendError, RunFailed, TlganError

__all__ = ["cause_of", "error_name", "train_on_ray"]
log = logging.getLogger("tlgan.trainer")
NO_RESTARTS: dict[str, Any] = {"max_failures": 0, "max_preemption_failures": 0, "controller_failure_limit": 0}
Ending = tuple[str | None, TlganError | None, list[str]]
"""Cause (None: the end was reached), what was raised, nodes that must not be used again."""


def train_on_ray(
    session: RaySession,
    task: GanTask,
    resources: ResourcesSpec,
    listener: Callable[[Event], None] | None = None,
    retry: RetrySpec | None = None,
    rank: Callable[[dict[str, Any]], None] = work,
) -> bool:
    """Runs `task` to its end, with as many restarts as `retry` allows. False when it was stopped.

    `rank` is what each worker does with the task as a mapping.

    Raises `RunFailed` when they are used up, or the workers' own error when a restart would not mend it.
    """
    session.connect()
    store, restarts = task.open_store(), Restarts(retry or RetrySpec())
    sizes = resources.sizes(task.recipe["train"]["batch_size"])
    gone, begun, fitting = set[str](), set[str](), sizes

    def hear(event: Event) -> None:
        begun.update([event["launch"]] if "launch" in event else [])
        (listener or _ignore)(event)

    with Follower(store, task.run, hear):
        teller = EventWriter(store, task.run)  # the follower hears of it
        try:
            while True:
                workers = wait_for_room(resources, fitting, gone, store, task, restarts.allowed, teller)
                if workers is None:
                    return False
                cause, error, nodes = _attempt(task, rank, resources, workers, sizes, gone, begun)
                if cause is None:
                    return True
                if cause == STOP:
                    return False
                gone |= set(nodes)
                teller({"type": "lost", "cause": cause, "workers": workers, "reason": error.message if error else None})
                restarts.spend(cause, error)
                smaller = [size for size in sizes if size < workers]
                fitting = smaller if cause == CAPACITY and smaller else sizes  # the room went before Ray could take it
        finally:
            teller.close()


def _ignore(event: Event) -> None:
    pass


def _attempt(
    task: GanTask,
    rank: Callable[[dict[str, Any]], None],
    resources: ResourcesSpec,
    workers: int,
    sizes: list[int],
    gone: set[str],
    begun: set[str],
) -> Ending:
    """Ray's trainer with a number of workers, until it ends one way or another."""
    task = replace(task, launch=uuid.uuid4().hex[:8])
    store = task.open_store()
    runs = Runs(store)

    def recorded() -> TlganError | None:
        return patiently(lambda: _recorded_error(runs, task), f"run {task.run}", task.patience)

    with (
        tempfile.TemporaryDirectory(prefix="tlgan-train-") as bookkeeping,
        Growth(task, resources, workers, sizes, gone, begun),
    ):
        trainer = trainer_of(task, rank, resources, workers, bookkeeping)
        try:
            away_from_main(trainer.fit, "ray-train")
        except Exception as error:
            if found := recorded():
                raise found from error
            cause, shown = ending_of(error)
            if cause is None:
                raise shown from error
            log.warning("the workers of run %s were lost (%s): %s", task.run, cause, shown.message)
            return cause, shown, []
    if found := recorded():
        raise found
    left = patiently(lambda: runs.get_json(task.run, left_name(task)), f"run {task.run}", task.patience)
    with contextlib.suppress(BackendError):
        discard(store, [f"runs/{task.run}/{left_name(task)}", resize_key(task.run, task.launch)] if left else [])
    return (str(left["cause"]), None, list(left.get("nodes", []))) if left else (None, None, [])


def trainer_of(
    task: GanTask, rank: Callable[[dict[str, Any]], None], resources: ResourcesSpec, workers: int, bookkeeping: str
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from cluster.few_actors import FewActorsTrainer
    from cluster.process_group import NodesTorchConfig
    from cluster.ray_daemons import has_api_server

    use_gpu = resources.gpus_per_worker > 0
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if use_gpu:
        per_worker["GPU"] = resources.gpus_per_worker
    return FewActorsTrainer(
        rank,
        train_loop_config={
            **asdict(task),
            "threads": resources.cpus_per_worker,
            "device": None if use_gpu else "cpu",  # a GPU that was not asked for is somebody else's
            "preemptible": has_api_server(),  # a Ray of our own has no nodes that could be taken away
        },
        torch_config=NodesTorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=per_worker),
        run_config=RunConfig(
            name="run",
            storage_path=bookkeeping,
            failure_config=FailureConfig(**NO_RESTARTS),
        ),
    )


def _recorded_error(runs: Runs, task: GanTask) -> TlganError | None:
    found = runs.get_json(task.run, error_name(task))
    if found is None:
        return None
    kind = getattr(errors, found["type"], RunFailed)
    error: TlganError = kind(found["message"], hint=found["hint"])
    return error
