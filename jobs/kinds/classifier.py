"""Kind `classifier`: train a classifier of the data's labels in this process and publish it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cluster.checkpoints import Checkpoints
from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.job import ClassifierJob
from cluster.patience import PATIENCE
from cluster.runs import RunRecord
from cluster.task import fetch_newest
from jobs.execute import Outcome, forget_progress
from jobs.pin import Plan, identity_of, pin_data
from jobs.session import Session
from tlgan.errors import RunStopped

DEFAULT_RESOLUTION = 32
KEEP = 2


def prepare(job: ClassifierJob, session: Session) -> Plan:
    session.ray.check(job.resources, on_ray=False)
    recipe = job.recipe()
    data, dataset, parent = pin_data(session, recipe.data, "data", recipe.data.resolution or DEFAULT_RESOLUTION, None)
    recipe = recipe.model_copy(update={"data": data})
    return Plan(job, [parent], {"recipe": identity_of(recipe)}, {"data": dataset.facts}, recipe, {"dataset": dataset})


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    from tlgan.artifact import save_networks
    from tlgan.learners.classifier import train_classifier
    from tlgan.saver import Saver

    job, dataset = plan.job, plan.payload["dataset"]
    assert isinstance(job, ClassifierJob)
    nowhere = {"path": None, "labels": None}  # images that have moved are the same images
    recipe = job.recipe().model_copy(update={"data": job.data.model_copy(update=nowhere)})
    writer = EventWriter(session.artifacts.store, run.id, lambda event: session.hear(run.id, event))
    total = round(recipe.train.kimg * 1000)
    writer({"type": "started", "nimg": 0, "total": total, "workers": 1})
    should_stop = session.should_stop(run)

    def report(row: dict[str, Any]) -> None:
        writer({"type": "progress", "nimg": row["nimg"], "stats": {"loss": row["loss"]}})
        if should_stop():
            raise RunStopped(f"run {run.id} was stopped", hint="the same command goes on from its last checkpoint")

    fence = Fence(session.artifacts.store, run.id, run.attempt)
    checkpoints = Checkpoints(session.artifacts.store, run.id, KEEP, run.attempt, fence)
    root = session.workdir(run.id) / "checkpoints"
    fetch_newest(checkpoints, root, PATIENCE)

    def publish(path: Path, nimg: int) -> None:
        checkpoints.push(path, nimg)

    try:
        with Saver(root, KEEP, publish) as saver:
            network, scores = train_classifier(recipe, dataset, report=report, saver=saver)
        metrics = [_metric(name, value) for name, value in scores.items()]
        for row in metrics:
            writer({"type": "metric", "nimg": total, **row})
    finally:
        writer.close()
    with tempfile.TemporaryDirectory(prefix="tlgan-classifier-") as folder:
        save_networks(Path(folder), {"C": network}, type="classifier", extra={"labels": dataset.label_names})
        manifest = session.artifacts.push(
            job.publishes.artifact,
            Path(folder),
            kind="classifier",
            parents=plan.parents,
            recipe=job.recipe(),
            metrics=metrics,
            facts={**plan.facts, "run": run.id},
            aliases=dict.fromkeys(["latest", *job.publishes.aliases]),
            guard=fence,
            claim=fence.claim,
        )
    forget_progress(session, run)
    return Outcome([manifest])


def _metric(name: str, value: float) -> dict[str, object]:
    return {"name": name, "value": value, "protocol": {"data": "a held-out tenth"}}
