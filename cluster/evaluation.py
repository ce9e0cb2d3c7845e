"""One evaluation as a plain value, and the function that does it: alone in this process, or in each of many Ray workers.

Each rank generates and looks at its share of the images; the numbers do not depend on how many ranks there are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cluster.inputs import dataset_of
from cluster.ray_session import RaySession
from cluster.runs import Runs
from cluster.sections import ResourcesSpec
from cluster.stopping import stop_key, stop_signal
from cluster.store import ArtifactStore, Store, open_store
from cluster.trainer import cause_of
from cluster.waiting import away_from_main
from tlgan.errors import RunFailed, RunStopped
from tlgan.recipe import DataSpec, EvaluationSpec
from tlgan.registry import owners_of

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationTask:
    """All a process needs to know to take part. References are pinned; `training` is given where a metric needs it."""

    run: str
    attempt: int
    store: str
    target: str
    metrics: list[str]
    evaluation: dict[str, Any]
    resolution: int | list[int]
    channels: int | None
    extractor_ref: str | None = None
    training: dict[str, Any] | None = None
    ema: bool = True
    endpoint: str | None = None
    threads: int | None = None
    device: str | None = None

    def open_store(self) -> Store:
        return open_store(self.store, endpoint=self.endpoint)


def run_evaluation(task: EvaluationTask, should_stop: Callable[[], bool]) -> Rows:
    """Rows of {name, value, protocol} on rank 0, `[]` on the others. Raises `RunStopped` between blocks of images."""
    import torch

    from tlgan.artifact import load_generator, load_network
    from tlgan.distributed import World
    from tlgan.metrics.extractors import open_extractor
    from tlgan.metrics.measure import measure
    from tlgan.metrics.pictures import Generated

    if task.threads:
        torch.set_num_threads(task.threads)
    world, artifacts = World.current(task.device), ArtifactStore(task.open_store())
    spec = EvaluationSpec.model_validate(task.evaluation)
    assert spec.data is not None, "an evaluation names its reference"
    path = artifacts.pull(task.target)
    features = artifacts.pull(task.extractor_ref) if task.extractor_ref else None
    training = DataSpec.model_validate(task.training) if task.training else None

    def check() -> None:
        if should_stop():
            raise RunStopped(f"run {task.run} was stopped", hint="the same command starts it again")

    def images_of(data: DataSpec) -> Any:
        return dataset_of(data, task.resolution, artifacts, task.channels)

    values = measure(
        task.metrics,
        Generated(load_generator(path).to(world.device), spec.samples, spec.seed, check),
        images_of(spec.data),
        open_extractor(spec.extractor, artifact_path=features, artifact_ref=task.extractor_ref, device=world.device),
        seed=spec.seed,
        ema=task.ema,
        training=images_of(training) if training else None,
        flipped=training is not None and training.flip,
        critic=load_network(path, "D").to(world.device) if "critic" in owners_of(task.metrics) else None,
        perceptual=spec.perceptual,
        world=world,
    )
    return [value.to_json() for value in values]


def evaluate_on_ray(session: RaySession, task: EvaluationTask, resources: ResourcesSpec) -> Rows:
    """The same on `resources.workers` Ray workers. Raises `RunStopped`, or what a worker raised."""
    session.connect()
    from ray.train import RunConfig, ScalingConfig

    from cluster.few_actors import FewActorsTrainer
    from cluster.process_group import NodesTorchConfig

    use_gpu = resources.gpus_per_worker > 0
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if use_gpu:
        per_worker["GPU"] = resources.gpus_per_worker
    config = {**asdict(task), "threads": resources.cpus_per_worker, "device": None if use_gpu else "cpu"}
    store = task.open_store()
    with tempfile.TemporaryDirectory(prefix="tlgan-evaluate-") as bookkeeping:
        trainer = FewActorsTrainer(
            _worker,
            train_loop_config=config,
            torch_config=NodesTorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=resources.workers, use_gpu=use_gpu, resources_per_worker=per_worker
            ),
            run_config=RunConfig(name="run", storage_path=bookkeeping),
        )
        try:
            away_from_main(trainer.fit, "ray-evaluate")
        except Exception as error:
            if store.head(stop_key(task.run, task.attempt)) is not None:
                raise RunStopped(f"run {task.run} was stopped", hint="the same command starts it again") from error
            raise cause_of(error) from error
    rows: Rows | None = Runs(store).get_json(task.run, _name(task))
    if rows is None:
        raise RunFailed(f"run {task.run} ended without a measurement in the store")
    return rows


def _worker(config: dict[str, Any]) -> None:
    from ray.train.torch import get_device

    task = EvaluationTask(**{**config, "device": config["device"] or str(get_device())})
    store = task.open_store()
    if rows := run_evaluation(task, stop_signal(store, task.run, task.attempt)):
        Runs(store).put_json(task.run, _name(task), rows)


def _name(task: EvaluationTask) -> str:
    """Below the run: what an attempt measured."""
    return f"measured-{task.attempt}.json"
