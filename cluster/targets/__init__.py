"""Where a run is driven: `local` (a process of its own on this machine), `ray` (a cluster's Jobs API), `kuberay` (a RayJob).

Targets are named in `tlgan.yaml`, never in a spec. Adding a kind is a module here and a line in `KINDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tlgan.errors import NotFound, Problem, SpecError, did_you_mean

if TYPE_CHECKING:
    from cluster.targets.base import Target

KINDS = {
    "local": "cluster.targets.local:LocalTarget",
    "ray": "cluster.targets.ray:RayTarget",
    "kuberay": "cluster.targets.kuberay:KubeTarget",
}
LOCAL = "local"


def known_targets() -> dict[str, dict[str, Any]]:
    """The settings of every target by name: those of the settings files, and `local`, which is always there."""
    from cluster.config import read_targets

    return {LOCAL: {"kind": "local"}, **read_targets()}


def open_target(name: str | None = None) -> Target:
    """The target of that name; default: the one of `--on`'s settings (`TLGAN_TARGET`, `defaults.target`, `local`).

    Raises `NotFound` with near names, `SpecError` for settings with mistakes. Nothing is reached yet.
    """
    from cluster.config import read_settings

    name = name or read_settings()["target"].value or LOCAL
    known = known_targets()
    if name not in known:
        hint = did_you_mean(name, known) or f"targets are: {', '.join(known)}; more go under `targets:` in tlgan.yaml"
        raise NotFound(f'there is no target "{name}"', hint=hint)
    return make_target(name, known[name])


def make_target(name: str, settings: Mapping[str, Any]) -> Target:
    """Raises `SpecError` with every mistake in the settings."""
    kind = settings.get("kind")
    if kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS)
        raise SpecError(f"targets.{name}.kind: expected one of: {', '.join(KINDS)}; received {kind}", hint=hint)
    module, _, attribute = KINDS[kind].partition(":")
    model: type[Target] = getattr(importlib.import_module(module), attribute)
    try:
        return model.model_validate({**settings, "name": name})
    except ValidationError as error:
        found = [(".".join(map(str, e["loc"])), e) for e in error.errors(include_url=False)]
        raise SpecError([_problem(f"targets.{name}.{path}", e, model) for path, e in found]) from None


def _problem(path: str, error: Any, model: type[Target]) -> Problem:
    if error["type"] == "extra_forbidden":
        own = [field for field in model.model_fields if field != "name"]
        return Problem(
            f"unknown key; expected one of: {', '.join(own)}", path, hint=did_you_mean(error["loc"][-1], own)
        )
    if error["type"] == "missing":
        about = (
            model.model_fields[str(error["loc"][-1])].description if error["loc"][-1] in model.model_fields else None
        )
        return Problem("required, but missing" + (f" ({about})" if about else ""), path)
    return Problem(error["msg"].removeprefix("Value error, "), path)
