"""The JSON Schema is one, takes what validation takes, and refuses what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.job import KINDS
from cluster.schema import json_schema

SHIPPED = sorted((Path(__file__).parents[3] / "jobs" / "specs").glob("*.yaml"))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_schemas_are_valid(kind: str | None) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(kind))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_specs_fit(path: Path) -> None:
    spec = yaml.safe_load(path.read_text())
    jsonschema.validate(spec, json_schema(path.stem.partition("-")[0]))
    jsonschema.validate(spec, json_schema())


@pytest.mark.parametrize(
    "change",
    [{"kind": "pretrian"}, {"kind": None}, {"more": 1}, {"train": {"kimg": "x"}}, {"name": "A"}, {"train": {}}],
)
def test_broken_specs_do_not(change: dict[str, Any]) -> None:
    spec = yaml.safe_load(next(p for p in SHIPPED if p.stem == "pretrain").read_text())
    spec = {k: v for k, v in {**spec, **change}.items() if v is not None}
    for schema in (json_schema("pretrain"), json_schema()):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spec, schema)
