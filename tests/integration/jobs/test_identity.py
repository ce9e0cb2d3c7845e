"""What makes two runs the same, and what is done for one that is not run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.job import SweepJob
from cluster.specfile import parse_job
from cluster.task import GanTask
from jobs.execute import execute
from jobs.kinds import sweep as sweeps
from jobs.session import Session
from tlgan.errors import RunStopped
from tlgan.metrics.protocol import MetricValue

Events = list[tuple[str, dict[str, Any]]]


def types(events: Events) -> list[str]:
    return [event["type"] for _, event in events]


def pictures(folder: Path, seed: int, count: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def test_a_run_goes_on_after_its_images_were_moved(
    session: Session, pretrain: Callable[..., Any], tmp_path: Path, events: Events
) -> None:
    def job(folder: Path) -> Any:
        return pretrain(data__source="folder", data__path=folder, checkpoint__every_kimg=0.2)

    here = pictures(tmp_path / "here", seed=0)
    session.listener = lambda run, event: session.interrupted.set() if event["type"] == "checkpoint" else None
    with pytest.raises(RunStopped):
        execute(job(here), session)
    session.interrupted.clear()
    session.listener = lambda run, event: events.append((run, event))
    there = Path(shutil.move(here, tmp_path / "there"))
    assert execute(job(there), session).attempt == 2
    assert "resumed" in types(events)


def test_the_images_of_every_trial_count(session: Session, tmp_path: Path) -> None:
    """The space may vary the data; other images in the second trial's folder make another sweep."""
    folders = [str(pictures(tmp_path / name, seed)) for seed, name in enumerate("ab")]
    base = {
        "kind": "pretrain",
        "name": "b",
        "data": {"source": "folder", "path": folders[0]},
        "train": {"kimg": 1, "batch_size": 32},
        "evaluation": {"extractor": "inception"},
    }
    spec = {"kind": "sweep", "name": "s", "base": base, "space": {"data.path": {"choice": folders}}}
    job = parse_job({**spec, "search": {"algo": "grid", "trials": 2}})
    assert isinstance(job, SweepJob)
    before = sweeps.prepare(job, session).run_id
    assert sweeps.prepare(job, session).run_id == before
    pictures(tmp_path / "b", seed=2)
    assert sweeps.prepare(job, session).run_id != before


def test_a_metric_that_is_not_a_number_does_not_cost_the_result(
    session: Session, pretrain: Callable[..., Any], features: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluator(task: GanTask, *_: Any) -> Any:
        return lambda *_: [MetricValue("kid", 0.5), MetricValue("fid", float("nan"))]

    monkeypatch.setattr("cluster.task.evaluator_of", evaluator)
    record = execute(pretrain(train__kimg=0.5, metrics="[kid, fid]"), session)
    manifest = session.artifacts.resolve(record.outputs[0]["ref"])
    assert [metric["name"] for metric in manifest.metrics] == ["kid"]
    assert {row["name"] for row in session.runs.metrics(record.id)} == {"kid", "fid"}


def test_an_evaluation_that_is_not_run_again_promotes_again(
    session: Session, pretrain: Callable[..., Any], features: None, events: Events
) -> None:
    spec = {"kind": "evaluate", "name": "e", "data": {"source": "digits"}, "metrics": ["kid"], "samples": 32}
    spec |= {"gate": {"kid": "< 1000"}, "promote": "production"}
    refs = [execute(pretrain(train__kimg=0.5, train__seed=seed), session).outputs[0]["ref"] for seed in (0, 1)]
    for ref in (*refs, refs[0]):
        events.clear()
        execute(parse_job({**spec, "target": {"artifact": ref}}), session)
        assert session.artifacts.resolve("tiny-gan:production").ref == ref
    assert types(events) == ["cached"]


@pytest.mark.parametrize("form", ["grid", pytest.param("png", marks=pytest.mark.minutes)])
def test_images_are_drawn_again_when_they_are_not_what_they_were(
    session: Session, pretrain: Callable[..., Any], events: Events, workdir: Path, form: str
) -> None:
    execute(pretrain(train__kimg=0.5), session)
    spec = {"kind": "generate", "name": "images", "target": {"artifact": "tiny-gan:latest"}, "n": 3}
    job = parse_job({**spec, "format": form, "out": "drawn/here"})
    first = execute(job, session)
    assert first.facts["path"] == str(workdir / "drawn" / "here")
    events.clear()
    assert execute(job, session).attempt == 1
    assert types(events) == ["cached"]
    if form == "grid":
        Path("drawn/here").write_bytes(b"")
    else:
        shutil.rmtree("drawn/here")
    assert execute(job, session).attempt == 2
    assert execute(job, session).facts["digest"] == first.facts["digest"]
