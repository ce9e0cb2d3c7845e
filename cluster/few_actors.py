"""Ray Train's trainer with no more processes than are needed. Imports ray and torch."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from ray.runtime_context import RuntimeContext
from ray.train.torch import TorchTrainer

from cluster.ray_daemons import has_api_server

_CURRENT_ACTOR = vars(RuntimeContext).get("current_actor")
_INTRODUCING = threading.Lock()


class FewActorsTrainer(TorchTrainer):
    """A `TorchTrainer` without actors that are of no use here, each a process more to start, two seconds of a processor.

    One hands out Ray Data's shards, and nobody has any. The other frees what a dead controller held: it asks Ray's API server
    whether the controller lives, and without one waits twelve seconds for an answer when the training has ended. Where Ray has
    no such method or callbacks any more, this is a plain `TorchTrainer`.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()  # type: ignore[misc]
        needless = {"DatasetsCallback"} | (set() if has_api_server() else {"PlacementGroupCleanerCallback"})
        return [callback for callback in made if type(callback).__name__ not in needless]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        """Ray Train's controller in this thread, where Ray would start a process for it first, and then the workers.

        On a cluster it stays a process of its own, and so does what asks there whether nodes are about to be taken away.
        """
        controller_type = None if has_api_server() else controller_of_this_process()
        if controller_type is None:
            return super()._initialize_and_run_controller(**settings)  # type: ignore[misc]
        controller = controller_type(**settings)
        asyncio.run(controller.run())
        return controller.get_result()


def controller_of_this_process() -> Any:
    """Ray's `TrainController` for any thread of any process; None where it is built in another way than in Ray 2.60.

    It lets the workers know which actor it is, for what `ray.train.get_all_reported_checkpoints` asks it, and nobody does
    here: a process that is no actor lets them know of none.
    """
    try:
        from ray.train.v2._internal.execution.controller.controller import TrainController

        group_type: Any = TrainController.worker_group_cls
        introduce = group_type._init_train_context_on_workers
    except (ImportError, AttributeError):
        return None
    if not isinstance(_CURRENT_ACTOR, property):
        return None

    contexts: Any = RuntimeContext

    def nobody_elsewhere(context: Any) -> Any:
        return _CURRENT_ACTOR.fget(context) if context.get_actor_id() else None  # type: ignore[misc]

    class Group(group_type):  # type: ignore[misc]
        def _init_train_context_on_workers(self, *arguments: Any, **named: Any) -> Any:
            with _INTRODUCING:
                contexts.current_actor = property(nobody_elsewhere)
                try:
                    return introduce(self, *arguments, **named)
                finally:
                    contexts.current_actor = _CURRENT_ACTOR

    class Controller(TrainController):
        worker_group_cls = Group

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            told = self._worker_group_callbacks_to_propagate
            told[:] = [callback for callback in told if type(callback).__name__ != "PreemptionCallback"]

    return Controller
