"""Guards, the best networks and the end for want of improvement, as jobs see them: records, pictures, what is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.task import GanTask
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import Collapsed, RunStopped
from tlgan.metrics.protocol import MetricValue

Events = list[tuple[str, dict[str, Any]]]
Script = Callable[..., None]


@pytest.fixture
def pretrain(pretrain: Callable[..., Any]) -> Callable[..., Any]:
    """One whose extractor needs no training: nothing is measured with it."""
    return lambda **changes: pretrain(evaluation__extractor="inception", **changes)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """script(0.5, 0.2, ...): what is measured as each metric, one measurement after another, over all runs of the test."""

    def write(*values: float) -> None:
        left: Iterator[float] = iter(values)

        def evaluator(task: GanTask, recipe: Any, *_: Any) -> Any:
            def evaluate(*_: Any) -> list[MetricValue]:
                value = next(left)
                return [MetricValue(name, value) for name in recipe.metrics]

            return evaluate

        monkeypatch.setattr("cluster.task.evaluator_of", evaluator)

    return write


def of_type(events: Events, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in events if event["type"] == kind]


def test_a_guard_fails_the_run_with_a_reason_and_a_picture(
    session: Session, pretrain: Callable[..., Any], script: Script, events: Events
) -> None:
    script(0.4, 0.01)
    job = pretrain(guards__metrics='{recall: ">= 0.05"}', guards__after_kimg=0.5, checkpoint__every_kimg=0.5)
    with pytest.raises(Collapsed, match=r"recall is 0\.01"):
        execute(job, session)
    record = session.runs.get("tiny")
    assert record.state == "failed"
    assert record.reason is not None
    assert record.reason.startswith("stopped by a guard: recall is 0.01 at 1")
    (guard,) = of_type(events, "guard")
    picture = session.artifacts.store.get(session.runs.grids(record.id)[guard["grid"]])
    assert picture.startswith(b"\x89PNG")
    assert not session.artifacts.versions("tiny-gan"), "nothing is published"
    assert [event["type"] for event in session.runs.events(record.id)].count("guard") == 1


def test_guards_are_part_of_what_a_run_is(session: Session, pretrain: Callable[..., Any], script: Script) -> None:
    script(0.4, 0.4)
    common = {"metrics": "[recall]", "checkpoint__every_kimg": 1}
    first = execute(pretrain(**common), session)
    with_guard = pretrain(**common, guards__metrics='{recall: ">= 0.3"}')
    assert execute(with_guard, session).id != first.id, "a result without the guard does not pass for one with it"


@pytest.mark.parametrize("metric", ["kid", pytest.param("recall", marks=pytest.mark.minutes)])
def test_the_best_networks_are_published_not_the_last(
    session: Session, pretrain: Callable[..., Any], script: Script, metric: str
) -> None:
    script(*((0.5, 0.1, 0.3, 0.4) if metric == "kid" else (0.5, 0.9, 0.3, 0.4)))
    record = execute(pretrain(train__kimg=2, checkpoint__every_kimg=0.5, checkpoint__best=metric), session)
    manifest = session.artifacts.resolve(record.outputs[0]["ref"])
    assert manifest.facts["nimg"] == 1024, "the first step that reaches 1 kimg"
    assert [(m["name"], m["value"]) for m in manifest.metrics] == [(metric, 0.1 if metric == "kid" else 0.9)]
    assert {file.path.partition("/")[0] for file in manifest.files if "/" in file.path} == {"D", "G", "G_ema"}
    script(0.2)
    whole = execute(pretrain(name="short", train__kimg=1, checkpoint__every_kimg=0.5, metrics="[]"), session)
    published = [session.artifacts.resolve(r.outputs[0]["ref"]).files for r in (record, whole)]
    a, b = ({f.path: f.sha256 for f in one if f.path.endswith("safetensors")} for one in published)
    assert a == b, "they are those of a training that ended there"


def test_training_ends_when_nothing_improves_any_more(
    session: Session, pretrain: Callable[..., Any], script: Script, events: Events
) -> None:
    script(0.5, 0.1, 0.3, 0.2, 0.4, 0.4, 0.4)
    job = pretrain(train__kimg=4, checkpoint__every_kimg=0.5, checkpoint__best="kid", checkpoint__patience_kimg=0.9)
    record = execute(job, session)
    assert record.state == "succeeded"
    (enough,) = of_type(events, "enough")
    assert (enough["nimg"], enough["best_nimg"], enough["best"]) == (2016, 1024, 0.1)
    assert session.artifacts.resolve(record.outputs[0]["ref"]).facts["nimg"] == 1024
    events.clear()
    assert execute(job, session).id == record.id
    assert of_type(events, "cached")


def test_the_best_is_kept_over_a_resume(
    session: Session, pretrain: Callable[..., Any], script: Script, events: Events
) -> None:
    script(0.5, 0.1, 0.3, 0.2)
    job = pretrain(train__kimg=2, checkpoint__every_kimg=0.5, checkpoint__best="kid")

    def interrupt(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == "metric" and event["value"] == 0.3:
            session.interrupted.set()

    session.listener = interrupt
    with pytest.raises(RunStopped):
        execute(job, session)
    session.interrupted.clear()
    record = execute(job, session)
    assert record.attempt == 2
    assert of_type(events, "resumed")
    assert [event["value"] for event in of_type(events, "metric")] == [0.5, 0.1, 0.3, 0.2]
    manifest = session.artifacts.resolve(record.outputs[0]["ref"])
    assert (manifest.facts["nimg"], manifest.metrics[0]["value"]) == (1024, 0.1)
    assert session.artifacts.verify(manifest.ref, full=True).ok


def test_a_measurement_that_is_no_number_is_never_the_best(
    session: Session, pretrain: Callable[..., Any], script: Script
) -> None:
    script(float("nan"), 0.3)
    record = execute(pretrain(checkpoint__every_kimg=0.5, checkpoint__best="kid"), session)
    assert session.artifacts.resolve(record.outputs[0]["ref"]).metrics[0]["value"] == 0.3
