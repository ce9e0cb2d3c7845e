"""Settings and where each comes from: option, environment, the project's `tlgan.yaml`, the user's file, default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlgan.errors import Problem, SpecError

PROJECT_FILE = "tlgan.yaml"
_SECRET = re.compile(r"secret|token|passw|credential|access_?key|api_?key", re.IGNORECASE)


@dataclass(frozen=True)
class Setting:
    """`origin` is an option, a variable, `file:line` or `default`."""

    value: str | None
    origin: str
    in_file: bool = False


def user_file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tlgan" / "config.yaml"


def project_file(start: Path | None = None) -> Path | None:
    """The nearest `tlgan.yaml` here or in a folder above."""
    here = (start or Path.cwd()).resolve()
    return next((p for folder in (here, *here.parents) if (p := folder / PROJECT_FILE).is_file()), None)


def read_settings(*, store: str | None = None, start: Path | None = None) -> dict[str, Setting]:
    """`store`, `s3_endpoint`, `cache`, `cache_bytes`, `target`. Raises `SpecError` for a settings file with mistakes."""
    options = {"store": Setting(store, "--store")} if store else {}
    found = [options, _environment(), *(_from_file(path) for path in _files(start)), _defaults()]
    names = ("store", "s3_endpoint", "cache", "cache_bytes", "target")
    return {name: next((s for layer in found if (s := layer.get(name))), Setting(None, "not set")) for name in names}


def export_settings(store: str | None = None) -> str:
    """Puts what the files say of cache and endpoint into the environment, where libraries and workers look.

    Returns the URL of the store in force.
    """
    settings = read_settings(store=store)
    exported = {"cache": "TLGAN_CACHE", "cache_bytes": "TLGAN_CACHE_BYTES", "s3_endpoint": "TLGAN_S3_ENDPOINT"}
    for name, variable in exported.items():
        if (value := settings[name].value) and settings[name].in_file:
            os.environ[variable] = value
    return settings["store"].value or ""


def read_targets(start: Path | None = None) -> dict[str, dict[str, Any]]:
    """The targets both files define, by name; the project's win."""
    targets: dict[str, dict[str, Any]] = {}
    for path in reversed(list(_files(start))):
        targets |= _load(path)[0].get("targets") or {}
    return targets


def _files(start: Path | None) -> Iterator[Path]:
    if project := project_file(start):
        yield project
    if user_file().is_file():
        yield user_file()


def _environment() -> dict[str, Setting]:
    variables = {
        "store": ("TLGAN_STORE",),
        "s3_endpoint": ("TLGAN_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "cache": ("TLGAN_CACHE",),
        "cache_bytes": ("TLGAN_CACHE_BYTES",),
        "target": ("TLGAN_TARGET",),
    }
    return {
        name: Setting(os.environ[variable], variable)
        for name, choices in variables.items()
        if (variable := next((v for v in choices if os.environ.get(v)), ""))
    }


def _defaults() -> dict[str, Setting]:
    from cluster.store.trimming import DEFAULT_CAP

    store = (Path.cwd() / ".tlgan" / "store").as_uri()
    cache = Path.home() / ".cache" / "tlgan"
    values = {"store": store, "cache": str(cache), "cache_bytes": DEFAULT_CAP, "target": "local"}
    return {name: Setting(value, "default") for name, value in values.items()}


def _from_file(path: Path) -> dict[str, Setting]:
    value, lines = _load(path)
    flat = {
        "target": (value.get("defaults") or {}).get("target"),
        **{n: value.get(n) for n in ("store", "s3_endpoint", "cache", "cache_bytes")},
    }
    settings = {}
    for name, setting in flat.items():
        if setting is not None:
            shown = _absolute(setting, path.parent) if name in ("store", "cache") else setting
            settings[name] = Setting(shown, f"{path}:{lines.get(name, 1)}", in_file=True)
    return settings


def _absolute(text: str, folder: Path) -> str:
    """A relative path in a settings file is relative to that file."""
    if re.match(r"^[a-z0-9]+://", text):
        return text
    return str((folder / Path(text).expanduser()).absolute())


def _load(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's values and the lines they stand in."""
    from pydantic import Field, ValidationError

    from cluster.problems import problem_of
    from cluster.yamlpos import parse
    from tlgan.recipe import Section

    class Defaults(Section):
        target: str | None = Field(None, description="where jobs run unless --on says otherwise")

    class Settings(Section):
        store: str | None = None
        s3_endpoint: str | None = None
        cache: str | None = None
        cache_bytes: str | None = Field(None, description="cap of the cache, as in 50GB, 20% or none")
        targets: dict[str, dict[str, Any]] | None = None
        defaults: Defaults | None = None

    text = path.read_text(encoding="utf-8", errors="replace")
    documents, problems = parse(text, str(path))
    if not documents:
        return _checked({}, [p for p in problems if "empty" not in p.message]), {}
    document = documents[0]
    try:
        Settings.model_validate(document.value)
    except ValidationError as error:
        problems += [problem_of(e, Settings, document, ()) for e in error.errors(include_url=False)]
    for place in document.places:
        if place and isinstance(place[-1], str) and _SECRET.search(place[-1]):
            hint = "give it in the environment"
            problems.append(document.problem(place, "a settings file holds no secrets", hint, key=True))
    where = {"target": ("defaults", "target")}
    names = ("store", "s3_endpoint", "cache", "cache_bytes", "target")
    lines = {name: document.place(where.get(name, (name,))).line or 1 for name in names}
    return _checked(document.value, problems), lines


def _checked(value: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    if problems:
        raise SpecError(problems)
    return value
