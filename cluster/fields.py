"""What a model's fields accept, in plain words: for error messages, for overrides and for search spaces."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.document import Path
from tlgan.recipe import MAX_SEED

_NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}$"
_PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Shape:
    """A type with its constraints: `base` is int, str, Literal, list, dict or a model class."""

    base: Any
    arguments: tuple[Any, ...] = ()
    metadata: tuple[Any, ...] = ()
    nullable: bool = False

    @property
    def model(self) -> type[BaseModel] | None:
        return self.base if isinstance(self.base, type) and issubclass(self.base, BaseModel) else None

    @property
    def choices(self) -> tuple[Any, ...] | None:
        return self.arguments if self.base is Literal else None

    def limit(self, name: str) -> Any:
        """The constraint `ge`, `gt`, `le`, `lt`, `pattern`, `min_length` or `max_length`, or None."""
        return next((v for m in self.metadata if (v := getattr(m, name, None)) is not None), None)


def shape_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
    """Looks through `Annotated` and `| None`."""
    nullable = False
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation, metadata = arguments[0], (*metadata, *_flat(arguments[1:]))
        elif origin in (Union, types.UnionType):
            rest = [a for a in arguments if a is not type(None)]
            nullable = nullable or len(rest) < len(arguments)
            if len(rest) > 1:
                return Shape(Union, tuple(rest), metadata, nullable)
            annotation = rest[0]
        else:
            return Shape(origin or annotation, arguments, metadata, nullable)


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for m in metadata:
        yield from m.metadata if isinstance(m, FieldInfo) else (m,)


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields by the name they have in a file."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def field_shape(info: FieldInfo) -> Shape:
    return shape_of(info.annotation, tuple(info.metadata))


def shape_at(model: type[BaseModel], path: Path) -> Shape | None:
    """What may stand at `path`, or None when nothing may."""
    shape = Shape(model)
    for part in path:
        if shape.model:
            info = fields_of(shape.model).get(str(part))
            if info is None:
                return None
            shape = field_shape(info)
        elif shape.base in (list, dict):
            shape = shape_of(shape.arguments[-1]) if shape.arguments else Shape(Any)
        else:
            return None
    return shape


def default_at(model: type[BaseModel], path: Path) -> Any:
    """The default at `path`, or None. Inside a section that may be left out and is not there, there is none."""
    inner: Any = model
    for part in path:
        if isinstance(inner, BaseModel):
            inner = getattr(inner, str(part), None)
        elif isinstance(inner, type) and issubclass(inner, BaseModel) and (info := fields_of(inner).get(str(part))):
            inner = field_shape(info).base if info.is_required() else info.get_default()
        else:
            return None
    return None if isinstance(inner, type) else inner


def expectation(shape: Shape, received: Any = None) -> str:
    """`a whole number from 0 to 8`, `one of: fp32, bf16`, `a list of words`, ..."""
    if shape.choices:
        return f"{'' if len(shape.choices) == 1 else 'one of: '}{', '.join(map(str, shape.choices))}"
    if shape.base in (int, float):
        return _PLAIN[shape.base] + _bounds(shape, received)
    if shape.limit("pattern") == _NAME_PATTERN:
        return 'a name of lower-case letters, digits, ".", "_" and "-"'
    if shape.base is list:
        inner = _plural(shape_of(shape.arguments[0])) if shape.arguments else "values"
        return f"a list of {inner}{_lengths(shape)}"
    if shape.base is dict or shape.model or shape.base is Union:
        return "a mapping with at least one entry" if shape.limit("min_length") else "a mapping"
    return _PLAIN.get(shape.base, "a value")


def _plural(shape: Shape) -> str:
    if shape.choices:
        return "any of: " + ", ".join(map(str, shape.choices))
    return {int: "whole numbers", float: "numbers", str: "words"}.get(shape.base, "values")


def _lengths(shape: Shape) -> str:
    low, high = shape.limit("min_length"), shape.limit("max_length")
    if low == high and low is not None:
        return f", exactly {low}"
    return f", at least {low}" if low else ""


def _bounds(shape: Shape, received: Any) -> str:
    ge, gt, le, lt = (shape.limit(name) for name in ("ge", "gt", "le", "lt"))
    if le == MAX_SEED and not (_is_number(received) and received > le):
        le = None  # every whole number that people write
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    parts = [f"{sign} {limit}" for sign, limit in ((">=", ge), (">", gt), ("<=", le), ("<", lt)) if limit is not None]
    return " " + " and ".join(parts) if parts else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A received value as it would be written, cut to a readable length."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty one"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:76]} ..."
