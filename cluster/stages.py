"""Checks of a pipeline: its graph, and each stage's job in the light of the stages before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.checking import STAND_IN, UNLOADED, Checked, check_fields, check_job
from cluster.document import Document, Path
from cluster.feasible import Made, Scope
from cluster.job import KINDS
from tlgan.errors import Problem, did_you_mean

STAGE_KINDS = tuple(kind for kind in KINDS if kind != "pipeline")
_INPUTS: tuple[Path, ...] = (("init_from",), ("target",), ("base", "init_from"))
_EXTRACTORS: tuple[Path, ...] = (("extractor",), ("evaluation", "extractor"), ("base", "evaluation", "extractor"))


def check_pipeline(document: Document, at: Path = ()) -> Checked:
    value = dict(document.get(at))
    stages = value.get("stages")
    if not isinstance(stages, dict):
        return check_fields(document, at, value, Scope())
    graph = Graph(document, stages)
    problems = [*graph.problems()]
    made: dict[str, Made] = {}
    ready: dict[str, Any] = {}
    for name in graph.order():
        ready[name] = stages[name]
        if isinstance(stages[name], dict) and stages[name].get("run") is not None:
            scope = Scope({other: made.get(other, Made("gan")) for other in stages})
            checked = check_job(document, (*at, "stages", name, "run"), scope, STAGE_KINDS)
            problems += checked.problems
            made[name] = checked.made if checked.made.kind or checked.job else Made("gan")
            ready[name] = {**stages[name], "run": checked.job or STAND_IN}
    problems += graph.unordered(ready)
    value["stages"] = {name: ready[name] for name in stages}
    checked = check_fields(document, at, value, Scope())
    problems += checked.problems
    loaded = all(isinstance(s, dict) and s.get("run") is not UNLOADED for s in stages.values())
    return Checked(checked.job if loaded and not problems else None, problems)


class Graph:
    """Who waits for whom, as written: `needs`, and the `{stage: x}` inside the jobs."""

    def __init__(self, document: Document, stages: dict[str, Any]) -> None:
        self.document = document
        self.stages = stages
        self.needs = {name: [n for n, _ in self._needs(name)] for name in stages}

    def _needs(self, name: str) -> Iterator[tuple[str, Path]]:
        stage = self.stages[name]
        needs = stage.get("needs") if isinstance(stage, dict) else None
        for i, need in enumerate(needs if isinstance(needs, list) else ()):
            if isinstance(need, str):
                yield need, ("stages", name, "needs", i)

    def _uses(self, name: str) -> Iterator[tuple[str, Path]]:
        for path in _INPUTS:
            where = ("stages", name, "run", *path, "stage")
            if isinstance(used := self.document.get(where), str):
                yield used, where

    def problems(self) -> Iterator[Problem]:
        for name in self.stages:
            for need, where in self._needs(name):
                if need == name:
                    yield self.document.problem(where, f'stage "{name}" needs itself')
                elif need not in self.stages:
                    hint = did_you_mean(need, self.stages) or f"stages here: {', '.join(self.stages)}"
                    yield self.document.problem(where, f'unknown stage "{need}"', hint)
            for used, where in self._uses(name):
                if used == name:
                    yield self.document.problem(where, f'stage "{name}" takes its own result as input')
                elif used in self.stages and used not in self.needs[name] and set(self.needs[name]) <= set(self.stages):
                    hint = f"write needs: [{', '.join([*self.needs[name], used])}]"
                    message = f'takes the result of stage "{used}", which is not in the needs of "{name}"'
                    yield self.document.problem(where, message, hint)
        if cycle := self.cycle():
            where = ("stages", cycle[0], "needs")
            yield self.document.problem(where, f"stages wait for each other: {' -> '.join(cycle)}")

    def order(self) -> list[str]:
        """All stages, each after those it needs; those of a cycle as written."""
        done: list[str] = []
        while len(done) < len(self.stages):
            rest = [s for s in self.stages if s not in done]
            ready = [s for s in rest if all(n in done or n not in self.stages or n == s for n in self.needs[s])]
            done.append((ready or rest)[0])
        return done

    def cycle(self) -> list[str] | None:
        """`[a, b, a]`, or None."""
        finished: set[str] = set()

        def walk(name: str, trail: list[str]) -> list[str] | None:
            if name in trail:
                return [*trail[trail.index(name) :], name]
            for need in self.needs[name] if name not in finished else ():
                if need in self.stages and need != name and (found := walk(need, [*trail, name])):
                    return found
            finished.add(name)
            return None

        return next((found for name in self.stages if (found := walk(name, []))), None)

    def before(self, name: str) -> set[str]:
        """Every stage that has ended when `name` starts."""
        seen: set[str] = set()
        todo = [name]
        while todo:
            for need in self.needs.get(todo.pop(), ()):
                if need in self.stages and need not in seen:
                    seen.add(need)
                    todo.append(need)
        return seen

    def unordered(self, ready: dict[str, Any]) -> Iterator[Problem]:
        """Stages that name an artifact another stage publishes, without waiting for that stage."""
        makers = {
            name: stage["run"].publishes.artifact
            for name, stage in ready.items()
            if isinstance(stage, dict) and hasattr(stage.get("run"), "publishes") and stage["run"] is not STAND_IN
        }
        for name in self.stages:
            for where, text in self._artifacts(name):
                for maker, artifact in makers.items():
                    if text.startswith(f"{artifact}:") and maker != name and maker not in self.before(name):
                        hint = f"write needs: [{', '.join([*self.needs[name], maker])}]"
                        message = f'"{text}" is published by stage "{maker}", which "{name}" does not wait for'
                        yield self.document.problem(where, message, hint)

    def _artifacts(self, name: str) -> Iterator[tuple[Path, str]]:
        run = ("stages", name, "run")
        for path in _INPUTS:
            if isinstance(text := self.document.get((*run, *path, "artifact")), str):
                yield (*run, *path, "artifact"), text
        for path in _EXTRACTORS:
            kind, _, text = str(self.document.get((*run, *path)) or "").partition(":")
            if kind == "classifier":
                yield (*run, *path), text
