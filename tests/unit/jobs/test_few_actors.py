"""What is started beside the workers of a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from cluster.few_actors import FewActorsTrainer, controller_of_this_process


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
    assert trainer._initialize_and_run_controller(callbacks=[]) == ("an actor's" if cluster else {"callbacks": []})


async def nothing() -> None:
    pass


def test_another_ray_has_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert controller_of_this_process() is not None
    monkeypatch.setattr(
        "ray.train.v2._internal.execution.controller.controller.TrainController.worker_group_cls", object
    )
    assert controller_of_this_process() is None
