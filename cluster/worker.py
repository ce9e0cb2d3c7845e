"""What runs in each Ray Train worker: one rank of a training, and how it says why it ended.

runs/<run>/error-<attempt>.json   an error that a restart can't mend
runs/<run>/left-<launch>.json     why all ranks left together before the end: `cause`, and of a preemption the `nodes`
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from cluster.code import root
from cluster.jsonlog import set_up
from cluster.logs import captured
from cluster.runs import Runs
from cluster.stopping import resize_key, stop_key, watch
from cluster.store.base import Store
from cluster.task import GanTask, TaskHooks, run_gan
from tlgan.errors import BackendError, TlganError

PREEMPTION_EVERY = 3
"""Of so many questions whether to stop, one asks Ray, which takes a round trip of all ranks. Alone: seconds between two."""


def error_name(task: GanTask) -> str:
    """Below the run: why an attempt's workers gave up."""
    return f"error-{task.attempt}.json"


def left_name(task: GanTask) -> str:
    """Below the run: why the workers of a launch left before the end."""
    return f"left-{task.launch}.json"


def work(config: dict[str, Any]) -> None:
    """One rank of a training."""
    take_part(config, lambda task, store, leaving: TaskHooks(should_stop=leaving))


def take_part(config: dict[str, Any], hooks_of: Callable[[GanTask, Store, Leaving], TaskHooks]) -> None:
    """One rank. Errors that a restart can't mend are written down."""
    task = GanTask(**{**config, "device": config["device"] or _own_gpu()})
    store = task.open_store()
    runs, leaving = Runs(store), Leaving(store, task)
    try:
        with captured(store, task.run, *_introduced()):
            set_up(run=task.run, attempt=task.attempt, rank=_rank())
            if not run_gan(task, hooks_of(task, store, leaving)) and leaving.why:
                runs.put_json(task.run, left_name(task), leaving.why)
    except TlganError as error:
        if not isinstance(error, BackendError):
            told = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
            runs.put_json(task.run, error_name(task), told)
        raise


class Leaving:
    """Whether to leave: because a person stops the run, because a node is about to be taken away, or for another number
    of workers. All ranks ask equally often, at the same steps."""

    def __init__(self, store: Store, task: GanTask) -> None:
        self.why: dict[str, Any] | None = None
        self._asked, self._next = 0, 0.0
        self._preemptible = task.preemptible
        self._stop: Callable[[], bool] = watch(store, stop_key(task.run, task.attempt))
        self._resize: Callable[[], bool] = watch(store, resize_key(task.run, task.launch))

    def __call__(self) -> bool:
        if self._asks_ray() and (nodes := _nodes_taken_away()):
            self.why = {"cause": "preemption", "nodes": nodes}
        elif self._stop():
            self.why = {"cause": "stop"}
        elif self._resize():
            self.why = {"cause": "resize"}
        return self.why is not None

    def _asks_ray(self) -> bool:
        if not self._preemptible:
            return False
        from ray.train import get_context

        self._asked += 1
        if get_context().get_world_size() > 1:
            return self._asked % PREEMPTION_EVERY == 1
        due = time.monotonic() >= self._next
        self._next = time.monotonic() + PREEMPTION_EVERY if due else self._next
        return due


def _nodes_taken_away() -> list[str]:
    from ray.train import get_preemption_info

    info = get_preemption_info()
    return list(info.preempted_node_ids) if info else []


def _rank() -> int:
    from ray.train import get_context

    return int(get_context().get_world_rank())


def _introduced() -> tuple[str, str]:
    """The source of this worker's log, and its first line."""
    from ray.train import get_context

    here = get_context()
    rank, size = here.get_world_rank(), here.get_world_size()
    return f"rank-{rank}", f"rank {rank} of {size} on {socket.gethostname()} (process {os.getpid()}), code in {root()}"


def _own_gpu() -> str:
    from ray.train.torch import get_device

    return str(get_device())
