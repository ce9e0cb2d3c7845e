"""Going on with a run as it was begun: with the inputs it had, and only while it would make the same."""

from __future__ import annotations

from typing import Any

from cluster.job import Job
from cluster.runs import RunRecord
from cluster.specfile import parse_job
from cluster.submission import changes_between
from jobs.pin import Plan
from tlgan.errors import Conflict

PLACES = {
    "init_from": ("init_from",),
    "target": ("target",),
    "data": ("data",),
    "reference": ("evaluation", "data"),
}
"""Role of an input -> the section of a spec that names it by `artifact`."""
NOWHERE = ("data.path", "data.labels", "evaluation.data.path", "evaluation.data.labels")


def pinned_by(record: RunRecord, job: Job) -> Job:
    """`job` with the references that the record tells the digest of, and paths as absolute as its recipe has them."""
    spec = job.to_dict()
    at = spec["base"] if isinstance(spec.get("base"), dict) else spec
    for role, entry in record.inputs.items():
        section = _section(at, PLACES.get(role, ()))
        if section is not None and section.get("artifact"):
            section["artifact"] = f"{section['artifact'].partition(':')[0].partition('@')[0]}@{entry['digest']}"
    for role in ("data", "reference"):
        section, known = _section(at, PLACES[role]), _section(record.recipe or {}, PLACES[role])
        for name in ("path", "labels") if section and known else ():
            if section and known and section.get(name) and known.get(name):
                section[name] = known[name]
    return parse_job(spec)


def _section(spec: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    value: Any = spec if path else None
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def refuse_changed(found: RunRecord, plan: Plan) -> None:
    """Raises `Conflict`, naming what differs, when `plan` would not make what the run `found` was begun to make."""
    recipe = None if plan.recipe is None else plan.recipe.model_dump(mode="json")
    changed = changes_between(found.recipe, recipe or {}, NOWHERE) if found.recipe else []
    for role in sorted({*found.inputs, *plan.inputs}):
        before, now = (side.get(role, {}).get("digest", "nothing")[:16] for side in (found.inputs, plan.inputs))
        if before != now:
            changed.append(f"input {role} is {now} and was {before}")
    if not changed and found.submission is None and plan.own_id != found.id:
        changed = ["the code of tlgan has changed, or a part of the spec that is not in the recipe"]
    if changed:
        raise Conflict(
            f"run {found.id} can't go on, it would make something else: {'; '.join(changed[:5])}",
            hint="undo the change, or start it as a new run with `tlgan run` or `tlgan submit`",
        )
