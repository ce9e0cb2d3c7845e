"""The actor of a worker of Ray Train, for a controller in our own process. Imports ray and torch."""

from __future__ import annotations

import threading
from typing import Any

from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.worker_group import worker

ANSWERS_AFTER = 1.0
"""Seconds. What the group asks of a worker next, as to be ended because another one failed, waits as long at most."""


class RayTrainWorker(worker.RayTrainWorker):
    """A worker that answers how it is when its training has ended, or in a second.

    The end is known at once, and until then it is asked once a second. What is more, Ray looks for signals a hundred
    times a second in a main thread with nothing to do, and takes Python's lock from the training for it each time.
    """

    def poll_status(self) -> Any:
        runner = get_train_context().execution_context.training_thread_runner
        training: threading.Thread | None = vars(runner).get("_thread")  # of Ray 2.60
        if training:
            training.join(ANSWERS_AFTER)
        return super().poll_status()
