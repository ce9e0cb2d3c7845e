"""Going on with a run as it was begun: with the inputs it had, and only while it would make the same."""

from __future__ import annotations

from cluster.pinning import pinned_by
from cluster.runs import RunRecord
from cluster.submission import changes_between
from jobs.pin import Plan
from tlgan.errors import Conflict

__all__ = ["pinned_by", "refuse_changed"]
NOWHERE = ("data.path", "data.labels", "evaluation.data.path", "evaluation.data.labels")


def refuse_changed(found: RunRecord, plan: Plan) -> None:
    """Raises `Conflict`, naming what differs, when `plan` would not make what the run `found` was begun to make."""
    recipe = None if plan.recipe is None else plan.recipe.model_dump(mode="json")
    changed = changes_between(found.recipe, recipe or {}, NOWHERE) if found.recipe else []
    for role in sorted({*found.inputs, *plan.inputs}):
        before, now = (side.get(role, {}).get("digest", "nothing")[:16] for side in (found.inputs, plan.inputs))
        if before != now:
            changed.append(f"input {role} is {now} and was {before}")
    attached = found.submission is None or found.submission.get("began_attached")
    if not changed and attached and plan.own_id != found.id:
        changed = ["the code of tlgan has changed, or a part of the spec that is not in the recipe"]
    if changed:
        raise Conflict(
            f"run {found.id} can't go on, it would make something else: {'; '.join(changed[:5])}",
            hint="undo the change, or start it as a new run with `tlgan run` or `tlgan submit`",
        )
