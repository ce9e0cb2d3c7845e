"""Reading spec files: YAML to typed jobs, with all mistakes at once, each with file, line and column.

job = load_spec("sweep.yaml", ["search.trials=4"])
trial = apply_params(job.base, {"train.lr_g": 1e-4})
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from cluster.checking import UNLOADED, Checked, check_job, in_order
from cluster.document import Document, Path, Place, copy_of
from cluster.feasible import Scope
from cluster.job import Job
from cluster.overrides import apply_override, locate, override, set_values
from cluster.sweeps import check_points
from cluster.yamlpos import parse
from tlgan.errors import Problem, SpecError

__all__ = [
    "apply_override",
    "apply_params",
    "check_files",
    "check_space",
    "load_spec",
    "load_specs",
    "parse_job",
]

MAX_BYTES = 4_000_000
StrPath = str | os.PathLike[str]


def load_spec(path: StrPath, overrides: Sequence[str] = ()) -> Job:
    """The one job in a file. Raises `SpecError` with every problem, also for a file of several documents."""
    jobs = load_specs(path, overrides)
    if len(jobs) != 1:
        raise SpecError(Problem(f"expected one spec, received {len(jobs)}", file=str(path), hint="one file a spec"))
    return jobs[0]


def load_specs(path: StrPath, overrides: Sequence[str] = ()) -> list[Job]:
    """All jobs of a file of one or more YAML documents. Raises `SpecError` with every problem."""
    jobs, problems = check_files([path], overrides)
    if problems:
        raise SpecError(problems)
    return jobs


def check_files(paths: Iterable[StrPath], overrides: Sequence[str] = ()) -> tuple[list[Job], list[Problem]]:
    """The valid jobs of all files and everything that is wrong with the others. Never raises for a bad file."""
    jobs: list[Job] = []
    problems: list[Problem] = []
    for path in paths:
        documents, broken = _read(os.fspath(path))
        found = list(broken)
        for document in documents:
            checked = _check(document, overrides)
            found += checked.problems
            if checked.job is not None:
                jobs.append(checked.job)
        problems += in_order(found)
    return jobs, list(dict.fromkeys(problems))


def parse_job(spec: Mapping[str, Any], overrides: Sequence[str] = ()) -> Job:
    """The job of a plain mapping (see `Job.to_dict`); `{stage: x}` is taken on trust. Raises `SpecError`."""
    return _required(_check(Document(copy_of(spec)), overrides, Scope(open=True)))


def apply_params(job: Job, params: Mapping[str, Any]) -> Job:
    """`job` with the fields at dotted paths replaced, validated again. Raises `SpecError` naming the paths."""
    document = Document(job.to_dict())
    set_values(document, params)
    return _required(_check(document, (), Scope(open=True, loose=True)))


def check_space(base_job: Job, space: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with searching `space` ({path: Space or its mapping}) around `base_job`. Empty when nothing is."""
    loose = "transfer.method" in space
    document = Document({"base": base_job.to_dict()})
    return list(check_points(document, (), space, Scope(open=True, loose=loose)))


def _required(checked: Checked) -> Job:
    if checked.job is None:
        raise SpecError(in_order(checked.problems))
    return checked.job


def _check(document: Document, overrides: Sequence[str], scope: Scope = Scope()) -> Checked:  # noqa: B008
    if not isinstance(document.value, dict):
        return check_job(document, (), scope)
    early, late = _by_time(document, overrides)
    problems = [p for text in early if (p := override(document, text))]
    problems += _expand(document)
    problems += [p for text in late if (p := override(document, text))]
    checked = check_job(document, (), scope)
    checked.problems[:0] = problems
    if problems:
        checked.job = None
    return checked


def _by_time(document: Document, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides that name another file to load, or are for `set`, come before the files are loaded, all others after."""
    early = [text for text in overrides if _comes_first(locate(document.value, text.partition("=")[0].strip()))]
    return early, [text for text in overrides if text not in early]


def _comes_first(path: Path) -> bool:
    names_file = path == ("base",) or (len(path) == 3 and path[0] == "stages" and path[2] == "run")
    return names_file or (path[:1] == ("stages",) and path[2:3] == ("set",))


def _expand(document: Document) -> list[Problem]:
    """Puts the specs of other files in the place of their paths, and the `set` values of stages into them."""
    kind = document.value.get("kind")
    if kind == "sweep":
        return _expand_at(document, ("base",))
    stages = document.value.get("stages") if kind == "pipeline" else None
    problems: list[Problem] = []
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        if isinstance(stage, dict):
            run: Path = ("stages", name, "run")
            problems += _expand_at(document, run)
            if isinstance(inner := document.get(run), dict) and inner.get("kind") == "sweep":
                problems += _expand_at(document, (*run, "base"))
            problems += _apply_set(document, name)
    return problems


def _expand_at(document: Document, path: Path) -> list[Problem]:
    name = document.get(path)
    if not isinstance(name, str):
        return []
    place = document.place(path)
    folder = os.path.dirname(place.file) if place.file and place.line else ""
    documents, problems = _read(os.path.join(folder, name), place)
    if not problems and len(documents) != 1:
        problems = [document.problem(path, f'expected one spec in "{name}", received {len(documents)}')]
    if problems:
        document.graft(path, Document(UNLOADED, {(): place}))
    else:
        document.graft(path, documents[0])
    return problems


def _apply_set(document: Document, stage: str) -> list[Problem]:
    at: Path = ("stages", stage, "set")
    run: Path = ("stages", stage, "run")
    values = document.get(at)
    problems = []
    for name in values if isinstance(values, dict) and isinstance(document.get(run), dict) else ():
        target = run + locate(document.get(run), str(name))
        part = document.sub((*at, name))
        part.keys[()] = document.place((*at, name), key=True)
        if document.graft(target, part) is not None:
            problems.append(
                document.problem((*at, name), "nothing inside the stage's job could be set there", key=True)
            )
    return problems


def _read(file: str, named_at: Place | None = None) -> tuple[list[Document], list[Problem]]:
    """The documents of a file. What makes it unreadable is said at `named_at`, where the file was named."""
    place = named_at or Place(file)
    try:
        with open(file, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES // 1_000_000} MB is no spec")
        return parse(raw.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        message, hint = f"not UTF-8 text: byte {error.start} is {raw[error.start]:#04x}", None
    except FileNotFoundError:
        message, hint = "no such file", _near_file(file)
    except (OSError, ValueError) as error:
        message, hint = getattr(error, "strerror", None) or str(error), None
    prefix = f'"{file}": ' if named_at else ""
    return [], [Problem(prefix + message, place.label, place.file, place.line, place.column, hint)]


def _near_file(file: str) -> str | None:
    folder = FilePath(file).parent
    try:
        names = {p.stem: p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml")}
    except OSError:
        return f'the folder "{folder}" does not exist'
    near = difflib.get_close_matches(FilePath(file).stem, names, n=1)
    return f'did you mean "{names[near[0]]}"?' if near else None
