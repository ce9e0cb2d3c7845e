"""Kind `evaluate`: measure a published generator, hold it against a gate, promote it when it passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.job import EvaluateJob
from cluster.runs import RunRecord
from jobs.execute import Outcome
from jobs.pin import Plan, pin_artifact, pin_data, pin_extractor
from jobs.session import Session
from tlgan.errors import GateFailed, RunStopped, SpecError
from tlgan.recipe import ModelSpec


def prepare(job: EvaluateJob, session: Session) -> Plan:
    target, parent = pin_artifact(session, job.target, "target", "gan")
    if target.recipe is None:
        raise SpecError(f"target: {target.ref} does not say how its networks are built, it has no recipe")
    model = ModelSpec.model_validate(target.recipe["model"])
    _, dataset, reference = pin_data(session, job.data, "reference", model.resolution, target.facts.get("channels"))
    extractor, classifier = pin_extractor(session, job.extractor)
    parents = [parent, reference, *([classifier] if classifier else [])]
    what = {"metrics": job.metrics, "samples": job.samples, "seed": job.seed, "extractor": extractor}
    what |= {"gate": job.gate, "promote": job.promote}
    payload = {
        "target": target,
        "dataset": dataset,
        "extractor": extractor,
        "classifier": classifier,
        "repeat": promote,
    }
    return Plan(job, parents, what, {"reference": dataset.facts}, None, payload)


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    from tlgan.artifact import load_generator
    from tlgan.metrics.extractors import open_extractor
    from tlgan.metrics.measure import measure
    from tlgan.sampling import stream

    job, target, classifier = plan.job, plan.payload["target"], plan.payload["classifier"]
    assert isinstance(job, EvaluateJob)
    should_stop = session.should_stop(run.id)
    g = load_generator(session.artifacts.pull(target))
    path = session.artifacts.pull(classifier.ref) if classifier else None
    extractor = open_extractor(
        plan.payload["extractor"], artifact_path=path, artifact_ref=classifier.ref if classifier else None
    )
    ema = (target.recipe or {})["train"]["ema_kimg"] > 0

    def images() -> Iterator[Any]:
        for batch in stream(g, job.samples, job.seed):
            if should_stop():
                raise RunStopped(f"run {run.id} was stopped", hint="the same command starts it again")
            yield batch

    values = measure(job.metrics, images(), plan.payload["dataset"], extractor, seed=job.seed, ema=ema)
    writer = EventWriter(session.artifacts.store, run.id, lambda event: session.listener(run.id, event))
    try:
        for value in values:
            writer({"type": "metric", "nimg": target.facts.get("nimg", 0), **value.to_json()})
        failure = _gate(job, {value.name: value.value for value in values}, writer)
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
