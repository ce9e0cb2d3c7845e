"""Kind `evaluate`: measure a published generator, hold it against a gate, promote it when it passes."""

from __future__ import annotations

from typing import Any

from cluster.evaluation import EvaluationTask, evaluate_on_ray, run_evaluation
from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.job import EvaluateJob
from cluster.runs import RunRecord
from cluster.store import s3_endpoint
from jobs.execute import Outcome
from jobs.pin import Plan, pin_artifact, pin_data, pin_extractor, with_place
from jobs.session import Session
from tlgan.errors import GateFailed, SpecError
from tlgan.manifest import Manifest, Parent
from tlgan.recipe import DataSpec, ModelSpec
from tlgan.registry import owners_of


def prepare(job: EvaluateJob, session: Session) -> Plan:
    session.ray.check(job.resources, on_ray=job.resources.workers > 0)
    target, parent = pin_artifact(session, job.target, "target", "gan")
    if target.recipe is None:
        raise SpecError(f"target: {target.ref} does not say how its networks are built, it has no recipe")
    model = ModelSpec.model_validate(target.recipe["model"])
    channels = target.facts.get("channels")
    data, dataset, reference = pin_data(session, job.data, "reference", model.resolution, channels)
    training, trained_on = _training(job, target, model.resolution, session)
    extractor, classifier = pin_extractor(session, job.extractor)
    parents = [parent, reference, *trained_on, *([classifier] if classifier else [])]
    what = {"metrics": job.metrics, "samples": job.samples, "seed": job.seed, "extractor": extractor}
    what |= {"perceptual": with_place(job.perceptual)} if job.perceptual != "extractor" else {}
    what |= {"gate": job.gate, "promote": job.promote}
    pinned = job.evaluation.model_copy(
        update={"extractor": extractor, "data": data, "perceptual": with_place(job.perceptual)}
    )
    task = {
        "store": session.artifacts.url,
        "endpoint": s3_endpoint(),
        "target": target.ref,
        "metrics": job.metrics,
        "evaluation": pinned.model_dump(mode="json"),
        "resolution": model.resolution,
        "channels": channels,
        "extractor_ref": classifier.ref if classifier else None,
        "training": training.model_dump(mode="json") if training else None,
        "ema": target.recipe["train"]["ema_kimg"] > 0,
    }
    return Plan(
        job, parents, what, {"reference": dataset.facts}, None, {"target": target, "task": task, "repeat": promote}
    )


def _training(
    job: EvaluateJob, target: Manifest, resolution: int | list[int], session: Session
) -> tuple[DataSpec | None, list[Parent]]:
    """The images that the target was trained on, pinned, if a metric asks for them: those of the job, or of its recipe.

    Raises `SpecError` when the recipe names none, or they have changed since.
    """
    if "training" not in owners_of(job.metrics):
        return None, []
    named = (target.recipe or {}).get("data")
    if job.training is None and not named:
        raise SpecError(f"training: {target.ref} does not say what it was trained on", hint="name it: training: {...}")
    spec = job.training or DataSpec.model_validate(named)
    spec, _, parent = pin_data(session, spec, "training", resolution, target.facts.get("channels"))
    known = next((p.digest for p in target.parents if p.role == "data"), parent.digest)
    if job.training is None and parent.digest != known:
        raise SpecError(
            f"training: the images that {target.ref} was trained on are not there any more as they were",
            hint="name them where they are now: training: {source: folder, path: ...}",
        )
    return spec, [parent]


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    job, target = plan.job, plan.payload["target"]
    assert isinstance(job, EvaluateJob)
    task = EvaluationTask(run=run.id, attempt=run.attempt, **plan.payload["task"])
    if job.resources.workers:
        with session.passing_on_interrupts(run):
            rows = evaluate_on_ray(session.ray, task, job.resources)
    else:
        rows = run_evaluation(task, session.should_stop(run))
    writer = EventWriter(session.artifacts.store, run.id, lambda event: session.hear(run.id, event))
    try:
        for row in rows:
            writer({"type": "metric", "nimg": target.facts.get("nimg", 0), **row})
        failure = _gate(job, {row["name"]: row["value"] for row in rows}, writer)
        fence = Fence(session.artifacts.store, run.id, run.attempt)
        if failure is None and promote(plan, session, fence):
            writer({"type": "promoted", "ref": f"{target.name}:{job.promote}", "digest": target.digest})
    finally:
        writer.close()
    return Outcome(facts={"target": target.ref, "gate": dict(job.gate)}, failure=failure)


def promote(plan: Plan, session: Session, fence: Fence | None = None) -> bool:
    """Moves the alias that the job asks for, if any, to the target. `fence`: of the run that does."""
    job, target = plan.job, plan.payload["target"]
    assert isinstance(job, EvaluateJob)
    if job.promote:
        guarded: dict[str, Any] = {"guard": fence, "claim": fence.claim} if fence else {}
        session.artifacts.move_alias(target.name, job.promote, target.digest, **guarded)
    return job.promote is not None


def _gate(job: EvaluateJob, found: dict[str, float], writer: Any) -> GateFailed | None:
    missed = []
    for gate in job.gates:
        passed = gate.passes(found[gate.metric])
        writer(
            {"type": "gate", "metric": gate.metric, "value": found[gate.metric], "bound": str(gate), "passed": passed}
        )
        if not passed:
            missed.append(f"{gate.metric} is {found[gate.metric]:.4g}, the gate asks for {job.gate[gate.metric]}")
    return GateFailed("gate failed: " + "; ".join(missed)) if missed else None
