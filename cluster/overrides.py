"""`-s train.kimg=8`: changes of a spec from outside, typed by the schema, remembered as such for error messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.document import Document, Path, Place, copy_of
from cluster.fields import Shape, fields_of, shape_at
from cluster.job import KINDS, PipelineJob
from cluster.yamlpos import parse, scalar
from tlgan.errors import Problem

OPTION = "--set"
_DOTTED_KEYS = ("space", "set", "gate")  # mappings whose keys may have dots in them


def override(document: Document, text: str) -> Problem | None:
    """Applies `path=value` to the document. In a pipeline the path may start with a stage's name."""
    name, equals, value = text.partition("=")
    place = Place(f"{OPTION} {text}", label=name.strip())
    if not equals or not name.strip():
        return Problem(f'expected path=value, received "{text}"', "", OPTION, hint="as in train.kimg=8")
    path = locate(document.value, name.strip())
    parsed, problem = typed(value.strip(), shape_in(document.value, path), place)
    if problem is None and (blocked := document.set(path, parsed, place)) is not None:
        what = "the spec" if not blocked else f'"{".".join(map(str, blocked))}"'
        return Problem(f"{what} has nothing inside that could be set", place.label, place.file)
    return problem


def apply_override(mapping: dict[str, Any], text: str) -> dict[str, Any]:
    """A copy of a plain spec with `path=value` applied. Raises `ValueError` when it can't be; the values are unchecked."""
    document = Document(copy_of(mapping))
    if problem := override(document, text):
        raise ValueError(str(problem))
    return dict(document.value)


def locate(value: Any, name: str) -> Path:
    """The path that a dotted name means in this spec: through stage names and keys that have dots."""
    parts = name.split(".")
    stages = value.get("stages") if isinstance(value, dict) and value.get("kind") == "pipeline" else None
    path: list[str | int] = []
    if isinstance(stages, dict) and parts[0] in stages and parts[0] not in fields_of(PipelineJob):
        path = ["stages", parts[0], "run"]
        parts = parts[1:]
        value = stages[path[1]].get("run") if isinstance(stages[path[1]], dict) else None
    while parts:
        joined = _longest_key(value, parts, path)
        key: str | int = ".".join(parts[:joined])
        if isinstance(value, list) and str(key).isdecimal():
            key = int(key)
            value = value[key] if key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
        path.append(key)
        parts = parts[joined:]
    return tuple(path)


def _longest_key(value: Any, parts: list[str], path: list[str | int]) -> int:
    if isinstance(value, dict):
        for length in range(len(parts), 0, -1):
            if ".".join(parts[:length]) in value:
                return length
    return len(parts) if path and path[-1] in _DOTTED_KEYS else 1


def shape_in(value: Any, path: Path) -> Shape | None:
    """What may stand at `path` of a raw spec, looking into its nested specs by their own kinds."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    nested = (
        1 if kind == "sweep" and path[:1] == ("base",) else 3 if kind == "pipeline" and path[2:3] == ("run",) else 0
    )
    if nested and len(path) > nested:
        return shape_in(Document(value).get(path[:nested]), path[nested:])
    return shape_at(KINDS[kind], path)


def typed(text: str, shape: Shape | None, place: Place) -> tuple[Any, Problem | None]:
    """The value of `text` as YAML, or as it is where the schema wants text."""
    if text[:1] in ("[", "{", '"', "'"):
        documents, problems = parse(text, OPTION)
        if problems:
            return None, Problem(problems[0].message, place.label, place.file, hint=problems[0].hint)
        return documents[0].value, None
    value = scalar(text)
    wants_text = shape is not None and shape.base is str
    if wants_text and not (value is None and shape and shape.nullable):
        return text, None
    return value, None


def set_values(document: Document, values: Mapping[str, Any]) -> None:
    """Puts sampled parameters, `{"train.lr_g": 1e-4}`, into the document."""
    for name, value in values.items():
        document.set(locate(document.value, name), copy_of(value), Place(label=name))
