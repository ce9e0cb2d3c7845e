"""Evaluations as jobs: every metric of the table, what they ask for, and workers that change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.specfile import parse_job
from jobs.cli import main
from jobs.execute import execute
from jobs.session import Session
from tlgan import registry
from tlgan.errors import SpecError


def evaluation(*overrides: str, **fields: Any) -> Any:
    spec = {
        "kind": "evaluate",
        "name": "judge",
        "target": {"artifact": "tiny-gan:latest"},
        "data": {"source": "digits", "split": "test"},
        "metrics": list(registry.METRICS),
        "samples": 300,
    }
    return parse_job({**spec, **fields}, list(overrides))


def values(session: Session, run: str) -> dict[str, float]:
    return {row["name"]: row["value"] for row in session.runs.metrics(run)}


@pytest.fixture
def trained(session: Session, pretrain: Callable[..., Any], features: None) -> None:
    execute(pretrain(data__split="train", data__flip="true"), session)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_two_workers_measure_what_one_process_does(shared_ray: Any, session: Session, trained: None) -> None:
    alone = execute(evaluation(), session)
    found = values(session, alone.id)
    assert list(found) == sorted(registry.METRICS)
    assert set(alone.inputs) == {"target", "reference", "training", "extractor"}
    protocols = {row["name"]: row["protocol"] for row in session.runs.metrics(alone.id)}
    assert protocols["copy_rate"]["mirrored"] is True
    assert protocols["fid"]["protocol"] == "fid300_small"
    session.fresh = True
    shared = execute(evaluation("resources.workers=2"), session)
    assert values(session, shared.id) == pytest.approx(found, rel=1e-6), "one thread each, or more in this process"


def test_training_images_that_changed_are_not_compared_with(
    session: Session, pretrain: Callable[..., Any], features: None, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("L", (32, 32), 20 * number).save(folder / f"{number}.png")
    execute(pretrain(data__source="folder", data__path=str(folder)), session)
    job = {"metrics": ["copy_rate"], "samples": 32}
    execute(evaluation(**job), session)
    (folder / "0.png").unlink()
    with pytest.raises(
        SpecError, match=r"the images that tiny-gan@.* was trained on are not there any more as they were"
    ):
        execute(evaluation(**job), session)
    execute(evaluation(**job, training={"source": "digits", "limit": 20}), session)


def test_what_an_extractor_cannot_tell_is_said_before_anything_starts() -> None:
    with pytest.raises(SpecError) as caught:
        evaluation(extractor="dinov2:weights.pth")
    found = {problem.path: problem.message for problem in caught.value.problems}
    names = list(registry.METRICS)
    assert found == {
        f"metrics.{names.index('is')}": "is needs classes, dinov2 knows none",
        f"metrics.{names.index('semantic_agreement')}": "semantic_agreement needs classes, dinov2 knows none",
        f"metrics.{names.index('diversity')}": "dinov2 gives no distances for diversity",
        f"metrics.{names.index('ppl')}": "dinov2 gives no distances for ppl",
    }
    with pytest.raises(SpecError, match=r"extractor dinov2 needs a file of weights, as in dinov2:/path/to/dinov2\.pth"):
        evaluation(extractor="dinov2")
    with pytest.raises(SpecError, match='expected "extractor" or "lpips:/path/to/the/folder", received "lpips"'):
        evaluation(perceptual="lpips")


def test_the_verb_takes_all_metrics_and_names_their_protocols(
    session: Session, trained: None, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", "tiny-gan:latest", "--data", "digits", "--store", session.artifacts.url]
    assert main([*common, "--metrics", "all", "--samples", "64"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["METRIC", "VALUE", "PROTOCOL"]
    assert {row[0]: row[2] for row in rows[1:]} == {name: f"{name}64_small" for name in registry.METRICS}
    assert main([*common, "--metrics", "kid", "--samples", "2000"]) == 0
    assert "kid2k_quick" in capsys.readouterr().out
