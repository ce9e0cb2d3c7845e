"""JSON Schema of spec files, for editors and other tools. Made from the models, so it can't differ from them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from cluster.job import KINDS
from tlgan.errors import SpecError, did_you_mean

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """Of one kind, or of a file of any kind. Raises `SpecError` for an unknown kind."""
    if kind is not None and kind not in KINDS:
        near = did_you_mean(kind, KINDS)
        raise SpecError(f'unknown kind "{kind}"; expected one of: {", ".join(KINDS)}', hint=near)
    if kind is not None:
        schema = _marked(TypeAdapter(KINDS[kind]).json_schema())
        return {"$schema": DIALECT, **schema}
    refs, definitions = models_json_schema([(model, "validation") for model in KINDS.values()])
    kinds = [refs[(model, "validation")] for model in KINDS.values()]
    return {"$schema": DIALECT, "title": "tlgan spec", "oneOf": kinds, "$defs": _marked(definitions)["$defs"]}


def _marked(schema: dict[str, Any]) -> dict[str, Any]:
    """A file must say its kind, although a job made in Python need not."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if "const" in part.get("properties", {}).get("kind", {}):
            part["required"] = ["kind", *part.get("required", [])]
    return schema
