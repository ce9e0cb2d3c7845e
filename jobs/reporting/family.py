"""Which runs a report is about: the one asked for, a pipeline's stages, and the runs that made what they started from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.runs import RunRecord
from jobs.reporting.reader import Reader
from tlgan.manifest import Manifest


@dataclass(frozen=True)
class Family:
    """`members` are all runs but a pipeline, each after those it needed. `stages`: a pipeline's, by name, None: not begun."""

    subject: RunRecord
    members: tuple[RunRecord, ...]
    stages: dict[str, RunRecord | None]

    @property
    def own(self) -> list[RunRecord]:
        """The runs that the report is about, in order: a pipeline's stages, or the subject."""
        wanted = {r.id for r in self.stages.values() if r} if self.subject.kind == "pipeline" else {self.subject.id}
        return [member for member in self.members if member.id in wanted]


def family_of(reader: Reader, subject: RunRecord) -> Family:
    stages = stages_of(reader, subject) if subject.kind == "pipeline" else {}
    found: dict[str, RunRecord] = {}
    begun: set[str] = set()

    def visit(record: RunRecord) -> None:
        if record.id in begun:
            return
        begun.add(record.id)
        for entry in record.inputs.values():
            manifest = reader.manifest(entry["ref"], entry["digest"])
            maker = maker_of(reader, manifest) if manifest else None
            if maker:
                visit(maker)
        found[record.id] = record

    for record in [subject] if subject.kind != "pipeline" else [r for r in stages.values() if r]:
        visit(record)
    return Family(subject, tuple(found.values()), stages)


def maker_of(reader: Reader, manifest: Manifest) -> RunRecord | None:
    """The run that made an artifact, where the store has its record."""
    run = manifest.facts.get("run")
    return reader.record(run) if isinstance(run, str) else None


def stages_of(reader: Reader, pipeline: RunRecord) -> dict[str, RunRecord | None]:
    """As recorded at the pipeline's end; one that did not get there is matched with the runs of equal specs."""
    recorded = pipeline.facts.get("stages")
    if recorded:
        return {name: reader.record(stage["run"]) for name, stage in _sorted(pipeline, recorded)}
    candidates = [r for r in reader.runs.list() if not (pipeline.finished and r.created > pipeline.finished)]
    stages: dict[str, RunRecord | None] = {}
    for name, stage in stages_in_order(pipeline.spec.get("stages", {})):
        wanted = with_outputs(stage["run"], stages)
        matching = [
            r
            for r in candidates
            if r.name == wanted["name"] and r.spec == {"version": 1, **wanted} and _took_part(r, pipeline)
        ]
        stages[name] = matching[0] if matching else None
    return stages


def _sorted(pipeline: RunRecord, recorded: dict[str, Any]) -> list[tuple[str, Any]]:
    """As they ran: the store sorts by name."""
    order = [name for name, _ in stages_in_order(pipeline.spec.get("stages", {}))]
    return sorted(recorded.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _took_part(record: RunRecord, pipeline: RunRecord) -> bool:
    """It began in the pipeline, or had succeeded before and was taken as it was."""
    return record.state == "succeeded" or (record.started or "") >= (pipeline.started or "")


def stages_in_order(stages: dict[str, Any]) -> list[tuple[str, Any]]:
    """Each after the stages it needs; of a cycle, which no valid pipeline has, those before it."""
    order: dict[str, Any] = {}
    while len(order) < len(stages):
        ready = [n for n in stages if n not in order and all(need in order for need in stages[n].get("needs", []))]
        if not ready:
            break
        order |= {name: stages[name] for name in ready}
    return list(order.items())


def with_outputs(spec: Any, stages: dict[str, RunRecord | None]) -> Any:
    """The spec with `{stage: x}` replaced by the artifact that stage made, as the pipeline does before it runs it."""
    if isinstance(spec, list):
        return [with_outputs(item, stages) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if set(spec) == {"stage"} and spec["stage"] in stages:
        record = stages[spec["stage"]]
        return {"artifact": record.outputs[-1]["ref"]} if record and record.outputs else spec
    return {key: with_outputs(item, stages) for key, item in spec.items()}
