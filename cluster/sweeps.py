"""Checks of a sweep: its base, and whether every point of the search space is a valid change of the base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from cluster.checking import STAND_IN, UNLOADED, Checked, check_fields, check_job
from cluster.document import Document, Path, Place, copy_of
from cluster.feasible import Scope
from cluster.fields import fields_of, shape_at
from cluster.job import KINDS
from cluster.search.checks import check_search, contexts, spaces_of
from cluster.space import Space
from tlgan.errors import Problem, did_you_mean

BASE_KINDS = ("pretrain", "finetune")
FIXED = ("version", "kind", "name", "output")
_MOST_VALUES = 1000
_MOST_CONTEXTS = 20
_SAMPLED = Place("<sampled>")


def check_sweep(document: Document, at: Path, scope: Scope) -> Checked:
    value = dict(document.get(at))
    written = value.get("space")
    raw_space: dict[str, Any] = written if isinstance(written, dict) else {}
    inner = replace(scope, loose=scope.loose or "transfer.method" in raw_space)
    base = Checked()
    if value.get("base") is not None:
        base = check_job(document, (*at, "base"), inner, BASE_KINDS)
        value["base"] = base.job or STAND_IN
    checked = check_fields(document, at, value, scope)
    problems = base.problems + checked.problems
    if value.get("base") is not None and document.get((*at, "base")) is not UNLOADED:
        problems += check_points(document, at, raw_space, inner)
    problems += check_search(document, at, raw_space)
    if document.get((*at, "search", "algo")) == "grid":
        problems += _no_grid(document, at, raw_space)
    complete = checked.job if base.job and not problems else None
    return Checked(complete, problems, base.made)


def _no_grid(document: Document, at: Path, raw_space: dict[str, Any]) -> Iterator[Problem]:
    for path, spec in raw_space.items():
        for kind in ("uniform", "log_uniform"):
            if isinstance(spec, dict) and kind in spec:
                where = (*at, "space", path, kind)
                yield document.problem(where, "a grid search has no steps in a continuous range", "use {choice: [...]}")


def check_points(document: Document, at: Path, raw_space: Mapping[str, Any], scope: Scope) -> Iterator[Problem]:
    """Problems of the space under `at`, each at the value that causes it."""
    base = document.sub((*at, "base"))
    kind = base.value.get("kind") if isinstance(base.value, dict) else None
    if kind not in BASE_KINDS:
        return
    known = {(p.path, p.message) for p in check_job(Document(base.value), (), scope, BASE_KINDS).problems}
    spaces = spaces_of(raw_space)
    for path in raw_space:
        where = (*at, "space", path)
        if problem := path_problem(document, where, path, KINDS[str(kind)]):
            yield problem
        elif space := spaces.get(path):
            if problem := _type_problem(document, where, path, space, KINDS[str(kind)]):
                yield problem
                continue
            beside = contexts(spaces, path)[:_MOST_CONTEXTS]
            for number, value in enumerate(space.values[:_MOST_VALUES]):
                found = dict.fromkeys(p for c in beside for p in _value_problems(base, path, value, c, scope, known))
                for message, hint in found:
                    yield document.problem((*where, space.kind, number), message, hint)


def path_problem(document: Document, where: Path, path: str, model: type[BaseModel]) -> Problem | None:
    """Whether `path` names no field of the base, or one that can't vary."""
    parts = tuple(path.split("."))
    if parts[0] in FIXED:
        return document.problem(where, f'"{parts[0]}" is the same in all trials, it can\'t be searched', key=True)
    for depth, part in enumerate(parts):
        if shape_at(model, parts[: depth + 1]) is None:
            section = shape_at(model, parts[:depth])
            choices = list(fields_of(section.model)) if section and section.model else []
            near = did_you_mean(part, choices)
            hint = near and near.replace(f'"{near[14:-2]}"', f'"{".".join([*parts[:depth], near[14:-2]])}"')
            inside = f" in {'.'.join(parts[:depth])}" if depth else " in the base"
            return document.problem(where, f'there is no field "{part}"{inside}', hint, key=True)
    return None


def _type_problem(document: Document, where: Path, path: str, space: Space, model: type[BaseModel]) -> Problem | None:
    shape = shape_at(model, tuple(path.split(".")))
    if space.kind in ("uniform", "log_uniform") and shape and shape.base is not float:
        kind = "a whole number" if shape.base is int else "not a number"
        hint = "use {int: [lo, hi]} or {choice: [...]}" if shape.base is int else "use {choice: [...]}"
        return document.problem((*where, space.kind), f"{path} is {kind}, it has no continuous range", hint)
    return None


def _value_problems(
    base: Document, path: str, value: Any, beside: Mapping[str, Any], scope: Scope, known: set[tuple[str, str]]
) -> Iterator[tuple[str, str | None]]:
    """What is wrong with the base once `path` has `value`, and other fields the values `beside`."""
    trial = Document(copy_of(base.value))
    for other, its in beside.items():
        trial.set(tuple(other.split(".")), copy_of(its), replace(_SAMPLED, label=other))
    trial.set(tuple(path.split(".")), copy_of(value), replace(_SAMPLED, label=path))
    for problem in check_job(trial, (), scope, BASE_KINDS).problems:
        if (problem.path, problem.message) not in known:
            elsewhere = "" if problem.path == path else f"with this value, {problem.path}: "
            yield elsewhere + problem.message, problem.hint
