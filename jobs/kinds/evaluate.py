"""Kind `evaluate`: measure a published generator, hold it against a gate, promote it when it passes."""

from __future__ import annotations

from typing import Any

from cluster.events import EventWriter
from cluster.job import EvaluateJob
from jobs.execute import Outcome
from jobs.pin import Plan, pin_artifact, pin_data, pin_extractor
from jobs.session import Session
from tlgan.errors import GateFailed
from tlgan.recipe import ModelSpec


def prepare(job: EvaluateJob, session: Session) -> Plan:
    target, parent = pin_artifact(session, job.target, "target", "gan")
    model = ModelSpec.model_validate((target.recipe or {})["model"])
    _, dataset, reference = pin_data(session, job.data, "reference", model.resolution, target.facts.get("channels"))
    extractor, classifier = pin_extractor(session, job.extractor)
    parents = [parent, reference, *([classifier] if classifier else [])]
    what = job.to_dict() | {"extractor": extractor, "target": target.digest, "reference": dataset.digest}
    payload = {"target": target, "dataset": dataset, "extractor": extractor, "classifier": classifier}
    return Plan(job, parents, what, {"reference": dataset.facts}, None, payload)


def perform(plan: Plan, session: Session, run_id: str) -> Outcome:
    from tlgan.artifact import load_generator
    from tlgan.metrics.extractors import open_extractor
    from tlgan.metrics.measure import measure
    from tlgan.sampling import stream

    job, target, classifier = plan.job, plan.payload["target"], plan.payload["classifier"]
    assert isinstance(job, EvaluateJob)
    writer = EventWriter(session.artifacts.store, run_id, lambda event: session.listener(run_id, event))
    g = load_generator(session.artifacts.pull(target))
    path = session.artifacts.pull(classifier.ref) if classifier else None
    extractor = open_extractor(
        plan.payload["extractor"], artifact_path=path, artifact_ref=classifier.ref if classifier else None
    )
    ema = (target.recipe or {})["train"]["ema_kimg"] > 0
    values = measure(
        job.metrics, stream(g, job.samples, job.seed), plan.payload["dataset"], extractor, seed=job.seed, ema=ema
    )
    for value in values:
        writer({"type": "metric", "nimg": target.facts.get("nimg", 0), **value.to_json()})
    failure = _gate(job, {value.name: value.value for value in values}, writer)
    if job.promote and failure is None:
        session.artifacts.move_alias(target.name, job.promote, target.digest)
        writer({"type": "promoted", "ref": f"{target.name}:{job.promote}", "digest": target.digest})
    writer.close()
    return Outcome(facts={"target": target.ref, "gate": dict(job.gate)}, failure=failure)


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
