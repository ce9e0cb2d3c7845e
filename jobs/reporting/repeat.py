"""How to do it again and how to use the result: commands that work as they stand, specs, recipes, versions."""

from __future__ import annotations

import platform
import shlex
from typing import Any

import yaml

import tlgan
from cluster.store.base import scrub
from jobs.reporting.family import Family, stages_in_order
from jobs.reporting.reader import Reader
from jobs.reporting.result import Result
from tlgan.errors import TlganError
from tlgan.manifest import Manifest
from tlgan.recipe import ClassifierRecipe, Recipe
from tlgan.report import Command, Document

ALIASES = ("production", "best")  # shown rather than others; then the newest name, then the digest
SPEC_OUT = "import json, sys; json.dump(json.load(sys.stdin)['spec'], sys.stdout)"


def commands_of(reader: Reader, family: Family, result: Result) -> tuple[Command, ...]:
    run, name = family.subject.id, family.subject.name
    url = scrub(reader.artifacts.url)
    found = [
        Command("Where the results are, for the commands below", f"export TLGAN_STORE={shlex.quote(url)}"),
        Command(
            "Run it again (what is unchanged is taken from the store; --fresh runs everything)",
            f'tlgan show {run} --json |\n  python3 -c "{SPEC_OUT}" > {name}.yaml\ntlgan run {name}.yaml',
        ),
    ]
    if result.manifest is not None and result.manifest.kind == "gan":
        ref = reference_of(reader, result.manifest)
        found += [
            Command("Draw images with the generator", f"tlgan generate {ref} --n 64 --seed 0 --out samples.png"),
            Command("Fetch it, every byte verified", f"tlgan pull {ref}"),
            Command("See what it was made from", f"tlgan artifact lineage {ref}"),
        ]
    sweep = next((record.id for record in reversed(family.own) if record.kind == "sweep"), None)
    looks = [f"tlgan show {run}", *([f"tlgan sweep leaderboard {sweep}"] if sweep else []), f"tlgan report {run}"]
    return (*found, Command("Look closer", "\n".join(looks)))


def reference_of(reader: Reader, manifest: Manifest) -> str:
    """An alias that points at the artifact now, else its digest."""
    here = [name for name, alias in reader.artifacts.aliases(manifest.name).items() if alias.digest == manifest.digest]
    chosen = next((alias for alias in (*ALIASES, *sorted(here)) if alias in here), None)
    return f"{manifest.name}:{chosen}" if chosen else manifest.ref


def recipes_of(reader: Reader, family: Family, result: Result) -> tuple[Document, ...]:
    """The spec of the run; then of every artifact the recipe it was made with, nothing left to defaults."""
    found = [Document(f"{family.subject.name}.yaml, the spec", to_yaml(in_order(family.subject.spec)))]
    for record in reversed(family.members):
        for output in record.outputs:
            manifest = reader.manifest(output["ref"], output["digest"])
            if manifest and manifest.recipe:
                title = f"{manifest.ref}, the whole recipe"
                found.append(Document(title, to_yaml(whole(manifest.recipe))))
        if not record.outputs and record.recipe:
            found.append(Document(f"{record.name}, the whole recipe", to_yaml(whole(record.recipe))))
    return tuple(found)


def in_order(spec: dict[str, Any]) -> dict[str, Any]:
    """A stored spec with its fields in the order of the schema, as people write them; the store sorts them by name."""
    from cluster.specfile import parse_job

    try:
        written = parse_job(spec).to_dict()
    except TlganError:
        return spec
    if "stages" in written:
        written["stages"] = dict(stages_in_order(written["stages"]))
    return written


def whole(recipe: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe in the order of its fields, without those left open."""
    kind = Recipe if recipe.get("learner") == "gan" else ClassifierRecipe
    try:
        return kind.model_validate(recipe).model_dump(mode="json", exclude_none=True)
    except ValueError:
        return recipe


def to_yaml(value: Any) -> str:
    """As a person would write it: innermost sections on one line."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def environment_of(reader: Reader, family: Family) -> dict[str, str]:
    subject = family.subject
    found = {
        "run": subject.id,
        "store": scrub(reader.artifacts.url),
        "ran on": subject.host,
        "ran with": ", ".join(f"{name} {v}" for name, v in {"tlgan": subject.version, **subject.versions}.items()),
        "attempt": str(subject.attempt) if subject.attempt > 1 else "",
        "report made with": f"tlgan {tlgan.__version__}, Python {platform.python_version()}",
    }
    return {key: value for key, value in found.items() if value}
