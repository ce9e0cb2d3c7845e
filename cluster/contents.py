"""What lies in a directory that a person publishes: a model that this tlgan can load, or just files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.store.formats import unsafe_files
from cluster.store.transfer import collect
from tlgan.errors import SpecError, TlganError

MODEL_FILE = "model.json"
RECIPE_FILE = "recipe.json"
NEEDED = {"gan": ("G_ema",), "classifier": ("C",)}
"""Networks without which an artifact of the kind is of no use."""


@dataclass(frozen=True)
class Contents:
    """`kind` for the manifest, with the recipe and facts found in the files; `bytes` of all files together.

    `note` says why a model is not taken for one; `unsafe` lists the files that a pull will refuse, each with the reason.
    """

    path: Path
    kind: str
    bytes: int = 0
    recipe: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    unsafe: list[str] = field(default_factory=list)


def look_into(path: Path, kind: str | None = None) -> Contents:
    """Decides what `path` is: `gan` or `classifier` when its `model.json` can be loaded, whole; else `files`.

    A `recipe.json` beside it (as `artifact show --json` prints under `recipe`) becomes the manifest's recipe, which is what
    a fine-tuning needs to start from it. With `kind`, a model that is not of that kind raises instead. Also raises
    `NotFound`, and `SpecError` for a recipe that is not valid or for files that can't be published.
    """
    path = path.expanduser()
    try:
        files = collect(path)
        size = sum(file.stat().st_size for file in files.values())
        unsafe = unsafe_files(files.items())
    except OSError as error:
        raise SpecError(f"can't read {error.filename}: {error.strerror}") from None
    return replace(_recognise(path, kind), bytes=size, unsafe=unsafe)


def _recognise(path: Path, kind: str | None) -> Contents:
    if kind is not None and kind not in NEEDED:
        return Contents(path, kind)
    if not (path / MODEL_FILE).is_file():
        if kind is not None:
            raise SpecError(f"{path} is no model of kind {kind}: it has no {MODEL_FILE}")
        return Contents(path, "files")
    try:
        found, facts = _load_model(path)
    except TlganError as error:
        if kind is not None:
            raise
        return Contents(path, "files", note=f"published as plain files: {error.message}")
    if kind is not None and kind != found:
        raise SpecError(f"{path} is a model of kind {found}; expected {kind}")
    return Contents(path, found, recipe=_recipe(path, found), facts=facts)


def _load_model(path: Path) -> tuple[str, dict[str, Any]]:
    """Kind and facts of a model directory, of which every network was loaded."""
    from tlgan.artifact import describe, load_network

    document = describe(path)
    kind, networks = document.get("type"), document.get("networks")
    if kind not in NEEDED or not isinstance(networks, dict):
        raise SpecError(f"{MODEL_FILE} describes a {kind!r}; expected one of: {', '.join(NEEDED)}")
    if missing := [which for which in NEEDED[kind] if which not in networks]:
        raise SpecError(f"{MODEL_FILE} has no network {missing[0]}; a {kind} needs one")
    loaded = {which: load_network(path, which) for which in networks}
    config = loaded[NEEDED[kind][0]].config
    return kind, {key: config[key] for key in ("resolution", "channels") if key in config}


def _recipe(path: Path, kind: str) -> dict[str, Any] | None:
    """The recipe beside a model, validated and written out in full; None when there is none."""
    from pydantic import ValidationError

    from tlgan.recipe import ClassifierRecipe, Recipe

    file = path / RECIPE_FILE
    if not file.is_file():
        return None
    model = ClassifierRecipe if kind == "classifier" else Recipe
    try:
        return model.model_validate(json.loads(file.read_text(encoding="utf-8"))).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, hint = ".".join(map(str, first["loc"])), f"correct it, or publish without {RECIPE_FILE}"
        raise SpecError(f"{file} is no recipe of a {kind}: {place}: {first['msg']}", hint=hint) from None
    except ValueError as error:
        raise SpecError(f"{file} is not JSON: {error}") from None
