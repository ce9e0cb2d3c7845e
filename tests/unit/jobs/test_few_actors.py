"""What is started beside the workers of a training."""

from __future__ import annotations

import queue
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, NoopDecision, scaling_policy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.execution.worker_group.thread_runner import ThreadRunner

from cluster.few_actors import FewActorsTrainer
from cluster.ray_controller import NoSynchronization, controller_of_this_process, never_synchronize, of_fixed_size
from cluster.ray_worker import RayTrainWorker


@pytest.mark.parametrize("cluster", [True, False])
def test_no_actor_that_is_of_no_use(cluster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with a Ray that has them in another way: then look whether leaving them out is still worth it."""
    monkeypatch.setattr("cluster.few_actors.has_api_server", lambda: cluster)

    def made_by(kind: type[TorchTrainer]) -> set[str]:
        trainer = kind(print, scaling_config=ScalingConfig(num_workers=2))
        return {type(callback).__name__ for callback in trainer._create_default_callbacks()}

    assert made_by(TorchTrainer) - made_by(FewActorsTrainer) == {
        "DatasetsCallback",
        *([] if cluster else ["PlacementGroupCleanerCallback"]),
    }


@pytest.mark.parametrize("cluster", [True, False])
def test_a_controller_of_its_own_is_for_clusters(cluster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.few_actors.has_api_server", lambda: cluster)
    monkeypatch.setattr(TorchTrainer, "_initialize_and_run_controller", lambda self, **settings: "an actor's")
    monkeypatch.setattr(
        "cluster.few_actors.controller_of_this_process",
        lambda: lambda **settings: SimpleNamespace(run=nothing, get_result=lambda: settings),
    )
    trainer = FewActorsTrainer(print, scaling_config=ScalingConfig(num_workers=2))
    settings = {"callbacks": [], "scaling_policy": "another's"}
    assert trainer._initialize_and_run_controller(**settings) == ("an actor's" if cluster else settings)


async def nothing() -> None:
    pass


def test_another_ray_has_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert controller_of_this_process() is not None
    monkeypatch.setattr(
        "ray.train.v2._internal.execution.controller.controller.TrainController.worker_group_cls", object
    )
    assert controller_of_this_process() is None


def test_nobody_is_asked_for_room_on_a_ray_that_cannot_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_policy, "TrainAutoscalingCoordinatorClient", None)  # would start an actor
    policy = of_fixed_size(FixedScalingPolicy(ScalingConfig(num_workers=2)))
    policy.after_controller_start(SimpleNamespace(run_id="1"))
    assert policy.make_decision_for_non_running_worker_group().num_workers == 2
    assert isinstance(policy.make_decision_for_running_worker_group(None, None), NoopDecision)
    policy.before_controller_abort()
    assert of_fixed_size(another := object()) is another


def test_a_worker_answers_when_its_training_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or after a second, so that it can be told to end when another one failed."""
    runner, ends = ThreadRunner(), threading.Event()
    reports = SimpleNamespace(get_nowait=none_there)
    execution = SimpleNamespace(result_queue=reports, training_thread_runner=runner)
    context = SimpleNamespace(
        execution_context=execution, preemption_context=SimpleNamespace(preemption_info=None), get_world_rank=lambda: 0
    )
    for module in ("cluster.ray_worker", "ray.train.v2._internal.execution.worker_group.worker"):
        monkeypatch.setattr(f"{module}.get_train_context", lambda: context)
    assert not RayTrainWorker().poll_status().running, "nothing to wait for"
    runner.run(ends.wait)
    monkeypatch.setattr("cluster.ray_worker.ANSWERS_AFTER", 0.1)
    assert RayTrainWorker().poll_status().running
    monkeypatch.setattr("cluster.ray_worker.ANSWERS_AFTER", 60.0)
    threading.Timer(0.3, ends.set).start()
    begun = time.monotonic()
    assert not RayTrainWorker().poll_status().running
    assert time.monotonic() - begun < 30


def none_there() -> None:
    raise queue.Empty


def test_workers_that_would_meet_are_told_that_they_cannot() -> None:
    never_synchronize()
    actor = worker_group.SynchronizationActor.options(num_cpus=0).remote(timeout_s=1)
    assert isinstance(actor, NoSynchronization)
    with pytest.raises(NotImplementedError, match=r"need a cluster"):
        _ = actor.broadcast_from_rank_zero
    state._shutdown_sync_actor(actor)  # as Ray does at the end; it would refuse what is no actor


def test_a_ray_without_these_modules_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scaling_policy", "worker_group"):
        monkeypatch.setitem(sys.modules, f"ray.train.v2._internal.execution.{name}", None)
    assert of_fixed_size(policy := object()) is policy
    never_synchronize()
