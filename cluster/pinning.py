"""A spec with nothing left to chance: aliases become digests, local paths become absolute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.job import SUFFIXES, Job, PipelineJob, TrainingJob
from cluster.references import name_of
from cluster.runs import RunRecord
from cluster.specfile import parse_job
from cluster.store import ArtifactStore

CLASSIFIER = "classifier:"
Inputs = dict[str, dict[str, str]]
PLACES = {
    "init_from": ("init_from",),
    "target": ("target",),
    "data": ("data",),
    "reference": ("evaluation", "data"),
}
"""Role of an input -> the section of a spec that names it by `artifact`."""


def pin_spec(job: Job, artifacts: ArtifactStore) -> tuple[dict[str, Any], Inputs]:
    """The job's spec with every reference by digest and every path absolute, and the references by their place in the spec.

    What a stage of a pipeline will publish is left as it is written: it is not there yet. Raises `NotFound`.
    """
    later = published_within(job)
    inputs: Inputs = {}

    def pin(place: str, ref: str) -> str:
        if name_of(ref) in later:
            return ref
        manifest = artifacts.resolve(ref)
        inputs[place] = {"ref": ref, "digest": manifest.digest}
        return manifest.ref

    spec: dict[str, Any] = _walked(job.to_dict(), "", pin)
    return spec, inputs


def published_within(job: Job) -> set[str]:
    """Names of the artifacts that stages of a pipeline publish."""
    stages = job.stages.values() if isinstance(job, PipelineJob) else ()
    return {stage.run.publishes.artifact for stage in stages if isinstance(stage.run, TrainingJob)}


def local_paths(spec: Any) -> list[str]:
    """The paths of this machine's files and folders that a pinned spec reads from."""
    if isinstance(spec, list):
        return [path for one in spec for path in local_paths(one)]
    if not isinstance(spec, dict):
        return []
    own = [one for name, one in spec.items() if name.rpartition(".")[2] == "path" and isinstance(one, str)]
    return [path for path in own if "://" not in path] + [path for one in spec.values() for path in local_paths(one)]


def _walked(value: Any, place: str, pin: Callable[[str, str], str]) -> Any:
    if isinstance(value, list):
        return [_walked(one, f"{place}[{i}]", pin) for i, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    done = {}
    for name, one in value.items():
        inner = f"{place}.{name}" if place else str(name)
        done[name] = _leaf(str(name), one, inner, pin) if isinstance(one, str) else _nested(str(name), one, inner, pin)
    if value.get("source") is not None and isinstance(labels := value.get("labels"), str):
        beside = value.get("path") and (Path(value["path"]) / labels).is_file()
        done["labels"] = labels if beside else _absolute(labels)
    if value.get("kind") == "generate":
        done["out"] = _absolute(value.get("out") or f"{value['name']}{SUFFIXES[value.get('format', 'grid')]}")
    return done


def _nested(name: str, value: Any, place: str, pin: Callable[[str, str], str]) -> Any:
    """Of a search space too: `init_from.artifact: {choice: [a:best, b:best]}`."""
    if isinstance(value, dict) and set(value) == {"choice"} and isinstance(value["choice"], list):
        leaves = [
            _leaf(name, one, f"{place}[{i}]", pin) if isinstance(one, str) else one
            for i, one in enumerate(value["choice"])
        ]
        return {"choice": leaves}
    return _walked(value, place, pin)


def _leaf(name: str, text: str, place: str, pin: Callable[[str, str], str]) -> str:
    last = name.rpartition(".")[2]
    if last == "artifact" and (":" in text or "@" in text):
        return pin(place.removesuffix(".artifact"), text)
    if last == "extractor" and text.startswith(CLASSIFIER):
        return CLASSIFIER + pin(place, text.removeprefix(CLASSIFIER))
    if last in ("extractor", "perceptual") and ":" in text:
        kind, _, file = text.partition(":")
        return f"{kind}:{_absolute(file)}"
    return _absolute(text) if last == "path" else text


def _absolute(path: str) -> str:
    """As processes with other folders need it; an address with `://` is one already."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def pinned_by(record: RunRecord, job: Job) -> Job:
    """`job` with the references that the record tells the digest of, and paths as absolute as its recipe has them."""
    spec = job.to_dict()
    at = spec["base"] if isinstance(spec.get("base"), dict) else spec
    for role, entry in record.inputs.items():
        section = _section(at, PLACES.get(role, ()))
        if section is not None and section.get("artifact"):
            section["artifact"] = f"{section['artifact'].partition(':')[0].partition('@')[0]}@{entry['digest']}"
    for role in ("data", "reference"):
        section, known = _section(at, PLACES[role]), _section(record.recipe or {}, PLACES[role])
        for name in ("path", "labels") if section and known else ():
            if section and known and section.get(name) and known.get(name):
                section[name] = known[name]
    return parse_job(spec)


def _section(spec: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    value: Any = spec if path else None
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None
