"""From a document to a typed job, with every mistake in it: fields by pydantic, the rest by `cluster.feasible`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cluster import feasible
from cluster.document import Document, Path
from cluster.feasible import Made, Scope, View
from cluster.job import KINDS, Job, PretrainJob
from cluster.problems import is_bound, problem_of
from tlgan.errors import Problem, did_you_mean
from tlgan.recipe import DataSpec, TrainSpec

UNLOADED: Any = object()
"""Stands for a nested spec whose file can't be read; that has been said already."""

STAND_IN = PretrainJob(name="unknown", data=DataSpec(source="digits"), train=TrainSpec(kimg=1.0))
"""Takes a broken nested spec's place, so that the rest of the outer one is still checked."""


@dataclass
class Checked:
    job: Job | None = None
    problems: list[Problem] = field(default_factory=list)
    made: Made = Made()  # noqa: RUF009


def check_job(document: Document, at: Path = (), scope: Scope = Scope(), kinds: Collection[str] = KINDS) -> Checked:  # noqa: B008
    """The job at `at`, which must be of one of `kinds`; None with at least one problem, or none where it was UNLOADED."""
    value = document.get(at)
    if value is UNLOADED:
        return Checked()
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else "nothing" if value is None else f'"{value}"'
        return Checked(None, [document.problem(at, f"expected a spec (a mapping with `kind`), received {what}")])
    if problem := _kind_problem(document, at, kinds):
        return Checked(None, [problem])
    if value["kind"] == "sweep":
        from cluster.sweeps import check_sweep

        return check_sweep(document, at, scope)
    if value["kind"] == "pipeline":
        from cluster.stages import check_pipeline

        return check_pipeline(document, at)
    return check_fields(document, at, value, scope)


def _kind_problem(document: Document, at: Path, kinds: Collection[str]) -> Problem | None:
    value = document.get(at)
    choices = ", ".join(kinds)
    if "kind" not in value:
        near = next((hint for key in value if (hint := did_you_mean(key, ["kind"]))), None)
        return document.problem((*at, "kind"), f"required, but missing; expected one of: {choices}", near)
    kind = value["kind"]
    if isinstance(kind, str) and kind in kinds:
        return None
    shown = f'"{kind}"' if isinstance(kind, str) else str(kind)
    return document.problem(
        (*at, "kind"), f"expected one of: {choices}; received {shown}", did_you_mean(str(kind), kinds)
    )


def check_fields(document: Document, at: Path, value: dict[str, Any], scope: Scope) -> Checked:
    """Checks `value` (what stands at `at`, perhaps with nested jobs already made) against its kind's model."""
    model = KINDS[value["kind"]]
    job: Job | None = None
    errors = []
    try:
        job = model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    view = View(document, at, model, frozenset(tuple(e["loc"]) for e in errors))
    found = list(feasible.findings(view, scope))
    said = {tuple(path.split(".")) for path, *_ in found}
    problems = [problem_of(e, model, document, at) for e in errors if not (is_bound(e) and tuple(e["loc"]) in said)]
    problems += [document.problem(at + tuple(path.split(".")), message, hint) for path, message, hint in found]
    made = Made(
        model.makes,
        feasible.resolution_of(view, scope),
        feasible.channels_of(view, scope),
        feasible.arch_of(view, scope),
    )
    return Checked(None if problems else job, problems, made)


def in_order(problems: list[Problem]) -> list[Problem]:
    """By place in the file, files in the order in which they were first met, without repetitions."""
    files = list(dict.fromkeys(p.file for p in problems))
    return sorted(dict.fromkeys(problems), key=lambda p: (files.index(p.file), p.line or 0, p.column or 0))
