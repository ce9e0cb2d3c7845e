"""Ray Train's controller without a process of its own, and without the actors beside the workers. Imports ray and torch.

All of it rests on how Ray 2.60 is built inside; where Ray is built in another way, each part leaves things as Ray has them.
"""

from __future__ import annotations

import threading
from typing import Any

from ray.runtime_context import RuntimeContext

_CURRENT_ACTOR = vars(RuntimeContext).get("current_actor")
_INTRODUCING = threading.Lock()
SYNCHRONIZATION, ENDING = "SynchronizationActor", "_shutdown_sync_actor"


def controller_of_this_process() -> Any:
    """Ray's `TrainController` for any thread of any process; None where it is built in another way than in Ray 2.60.

    It lets the workers know which actor it is, for what `ray.train.get_all_reported_checkpoints` asks it, and nobody does
    here: a process that is no actor lets them know of none.
    """
    try:
        from ray.train.v2._internal.execution.controller.controller import TrainController

        from cluster.ray_worker import RayTrainWorker

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
        _worker_cls = RayTrainWorker

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


def of_fixed_size(policy: Any) -> Any:
    """The same policy without the actor that asks an autoscaler for room, if it is Ray's for a fixed number of workers."""
    try:
        from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    except ImportError:
        return policy
    if type(policy) is not FixedScalingPolicy:
        return policy

    class FixedSize(FixedScalingPolicy):
        def after_controller_start(self, train_run_context: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    return FixedSize(policy.scaling_config)


class NoSynchronization:
    """In place of the actor where the workers' `ray.train.report` and collectives meet: ours have torch's for that."""

    @classmethod
    def options(cls, **_: Any) -> type[NoSynchronization]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> NoSynchronization:
        return cls()

    @property
    def broadcast_from_rank_zero(self) -> Any:
        raise NotImplementedError("ray.train.report with a checkpoint and ray.train.collective need a cluster")


def never_synchronize() -> None:
    """From here on, controllers of this process have `NoSynchronization`. Ray's actor where Ray (2.60) has it elsewhere."""
    try:
        from ray.train.v2._internal.execution.worker_group import state, worker_group
    except ImportError:
        return
    made, ended = (vars(module).get(name) for module, name in ((worker_group, SYNCHRONIZATION), (state, ENDING)))
    if made is NoSynchronization or made is None or ended is None:
        return

    def end(actor: Any) -> None:
        if not isinstance(actor, NoSynchronization):
            ended(actor)

    setattr(state, ENDING, end)
    setattr(worker_group, SYNCHRONIZATION, NoSynchronization)
