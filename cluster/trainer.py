"""Data-parallel training by Ray Train (V2): one `TorchTrainer` an attempt, `run_gan` in every worker.

Ray starts the workers, forms the process group and starts all over when one dies; the state to go on from is in our
checkpoints, the results are in our store. Ray's own storage holds nothing but its bookkeeping.
"""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import asdict
from typing import Any

from cluster.code import root
from cluster.events import Event, Follower
from cluster.logs import captured
from cluster.ray_session import RaySession
from cluster.runs import Runs
from cluster.sections import ResourcesSpec
from cluster.stopping import stop_key, stop_signal
from cluster.task import GanTask, TaskHooks, run_gan
from cluster.waiting import away_from_main
from tlgan import errors
from tlgan.errors import BackendError, RunFailed, TlganError

MAX_RESTARTS = 3


def error_name(task: GanTask) -> str:
    """Below the run: why an attempt's workers gave up."""
    return f"error-{task.attempt}.json"


def train_on_ray(session: RaySession, task: GanTask, resources: ResourcesSpec, listener: Any = None) -> bool:
    """Runs `task` on `resources.workers` workers. False when it was stopped. Raises `RunFailed` or the worker's own error."""
    session.connect()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    use_gpu = resources.gpus_per_worker > 0
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if use_gpu:
        per_worker["GPU"] = resources.gpus_per_worker
    store = task.open_store()
    with (
        tempfile.TemporaryDirectory(prefix="tlgan-train-") as bookkeeping,
        Follower(store, task.run, listener or _ignore),
    ):
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                **asdict(task),
                "threads": resources.cpus_per_worker,
                "device": None if use_gpu else "cpu",  # a GPU that was not asked for is somebody else's
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=resources.workers, use_gpu=use_gpu, resources_per_worker=per_worker
            ),
            run_config=RunConfig(
                name="run", storage_path=bookkeeping, failure_config=FailureConfig(max_failures=MAX_RESTARTS)
            ),
        )
        store.delete(f"runs/{task.run}/{error_name(task)}")
        try:
            away_from_main(trainer.fit, "ray-train")
        except Exception as error:
            raise _recorded_error(task) or cause_of(error) from error
    if recorded := _recorded_error(task):
        raise recorded
    return store.head(stop_key(task.run)) is None


def _ignore(event: Event) -> None:
    pass


def _worker(config: dict[str, Any]) -> None:
    """One rank. Errors that a restart can't mend are written down, and the restarted workers leave at once."""
    task = GanTask(**{**config, "device": config["device"] or _own_gpu()})
    runs = Runs(task.open_store())
    if runs.get_json(task.run, error_name(task)) is not None:
        return
    store = task.open_store()
    try:
        with captured(store, task.run, *_introduced()):
            run_gan(task, TaskHooks(should_stop=stop_signal(store, task.run)))
    except TlganError as error:
        if not isinstance(error, BackendError):
            told = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
            runs.put_json(task.run, error_name(task), told)
        if not isinstance(
            error, RunFailed
        ):  # divergence is seen by all ranks alike; anything else must end the others too
            raise


def _introduced() -> tuple[str, str]:
    """The source of this worker's log, and its first line."""
    from ray.train import get_context

    here = get_context()
    rank, size = here.get_world_rank(), here.get_world_size()
    return f"rank-{rank}", f"rank {rank} of {size} on {socket.gethostname()} (process {os.getpid()}), code in {root()}"


def _own_gpu() -> str:
    from ray.train.torch import get_device

    return str(get_device())


def _recorded_error(task: GanTask) -> TlganError | None:
    found = Runs(task.open_store()).get_json(task.run, error_name(task))
    if found is None:
        return None
    kind = getattr(errors, found["type"], RunFailed)
    error: TlganError = kind(found["message"], hint=found["hint"])
    return error


def cause_of(error: BaseException) -> TlganError:
    """The error of ours inside what Ray raised, or a `RunFailed` with the first line that says something."""
    seen: list[BaseException] = [error]
    while seen:
        one = seen.pop()
        if isinstance(one, TlganError):
            return one
        seen += [e for e in (getattr(one, "cause", None), one.__cause__) if isinstance(e, BaseException)]
        workers = getattr(one, "worker_failures", None)
        if isinstance(workers, dict):
            seen += [e for e in workers.values() if isinstance(e, BaseException)]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RunFailed(f"training failed: {lines[-1] if lines else type(error).__name__}", hint="see the run's Ray log")
