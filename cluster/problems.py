"""Pydantic's errors as sentences a person can act on, each at its place in the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cluster.document import Document, Path
from cluster.fields import Shape, expectation, field_shape, fields_of, shape_at, shape_of, shown
from cluster.yamlpos import scalar
from tlgan.errors import Problem, SpecError, did_you_mean

_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def is_bound(error: ErrorDetails) -> bool:
    """Whether the value has the right type but is too large or too small."""
    return error["type"] in _BOUNDS


def problem_of(error: ErrorDetails, model: type[BaseModel], document: Document, at: Path) -> Problem:
    """`at` is where in the document the value stands that was validated against `model`."""
    loc = tuple(error["loc"])
    if loc and loc[-1] == "[key]":
        path = at + loc[:-1]
        return document.problem(path, *_value_message(error, _shape_of_key(model, loc)), key=True)
    if error["type"] == "extra_forbidden":
        return document.problem(at + loc, *_unknown(model, loc), key=True)
    if error["type"] == "missing":
        return document.problem(at + loc, "required, but missing", _describe(model, loc))
    return document.problem(at + loc, *_value_message(error, shape_at(model, loc)))


def _shape_of_key(model: type[BaseModel], loc: Path) -> Shape | None:
    table = shape_at(model, loc[:-2])
    return shape_of(table.arguments[0]) if table and table.arguments else None


def _describe(model: type[BaseModel], loc: Path) -> str | None:
    """What to write for a missing key."""
    shape = shape_at(model, loc)
    return None if shape is None else f"expected {expectation(shape)}"


def _unknown(model: type[BaseModel], loc: Path) -> tuple[str, str | None]:
    key = str(loc[-1])
    section = shape_at(model, loc[:-1])
    known = list(fields_of(section.model)) if section and section.model else []
    hint = did_you_mean(key, known) or _elsewhere(model, loc)
    return f'unknown key "{key}"', hint or f"known here: {', '.join(known)}"


def _elsewhere(model: type[BaseModel], loc: Path) -> str | None:
    """`did you mean "train.lr_g"?` for a key that was written one section too high or too low."""
    key = str(loc[-1])
    if key in fields_of(model) and len(loc) > 1:
        return f'did you mean "{key}" at the top level?'
    for name, info in fields_of(model).items():
        section = field_shape(info).model
        if section and key in fields_of(section):
            return f'did you mean "{name}.{key}"?'
    return None


def _value_message(error: ErrorDetails, shape: Shape | None) -> tuple[str, str | None]:
    received = error["input"]
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, SpecError):
        return raised.problems[0].message, raised.problems[0].hint or raised.hint
    if error["type"] == "value_error":
        return _split_hint(str(raised))
    if shape is None:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}, received {shown(received)}", None
    separator = ";" if shape.choices else ","
    return f"expected {expectation(shape, received)}{separator} received {shown(received)}", _hint(shape, received)


def _split_hint(message: str) -> tuple[str, str | None]:
    text, separator, hint = message.partition("; did you mean ")
    return (text, f"did you mean {hint}") if separator else (message, None)


def _hint(shape: Shape, received: Any) -> str | None:
    for rule in _HINTS:
        if hint := rule(shape, received):
            return hint
    return None


def _near_choice(shape: Shape, received: Any) -> str | None:
    return did_you_mean(received, map(str, shape.choices)) if shape.choices and isinstance(received, str) else None


def _quoted_number(shape: Shape, received: Any) -> str | None:
    if shape.base in (int, float) and isinstance(received, str) and isinstance(scalar(received.strip()), int | float):
        return "drop the quotes"
    return None


def _separated_number(shape: Shape, received: Any) -> str | None:
    if shape.base in (int, float) and isinstance(received, str):
        plain = re.sub(r"[ _,']", "", received)
        if plain != received and re.fullmatch(r"[-+]?\d+(\.\d+)?", plain):
            return f"write {plain}"
    return None


def _old_boolean(shape: Shape, received: Any) -> str | None:
    words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
    word = words.get(str(received).lower()) if shape.base is bool else None
    return f"write {word}" if word else None


def _unquoted_text(shape: Shape, received: Any) -> str | None:
    if shape.base is str and isinstance(received, int | float):
        return f'put it in quotes: "{str(received).lower()}"'
    return None


def _one_item(shape: Shape, received: Any) -> str | None:
    return f"write [{received}]" if shape.base is list and isinstance(received, str | int | float) else None


def _slug(shape: Shape, received: Any) -> str | None:
    if shape.limit("pattern") and isinstance(received, str):
        slug = re.sub(r"[^a-z0-9._-]+", "-", received.lower()).strip("-._")[:100]
        return f'did you mean "{slug}"?' if slug and slug != received else None
    return None


_HINTS: list[Callable[[Shape, Any], str | None]] = [
    _near_choice,
    _quoted_number,
    _separated_number,
    _old_boolean,
    _unquoted_text,
    _one_item,
    _slug,
]
