"""Which points a search tries, when a trial counts as ended, which finalist wins. No Ray is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.job import SweepJob
from cluster.search.build import rule_of, total_of
from cluster.search.points import grid_size, sample
from cluster.space import Space
from cluster.specfile import parse_job
from jobs.kinds.gan import finite
from jobs.kinds.sweep import best_of
from jobs.output import Context
from jobs.progress import Progress
from tlgan.errors import RunFailed


def spaces(**given: Any) -> dict[str, Space]:
    return {path: Space.model_validate(spec) for path, spec in given.items()}


def test_no_point_is_tried_twice() -> None:
    few = spaces(a={"choice": [1, 2]}, b={"int": [0, 1]})
    points = sample(few, "random", 8, seed=0)
    assert len(points) == 4
    assert len({(p["a"], p["b"]) for p in points}) == 4
    assert len(sample(spaces(a={"choice": [1, 1.5, True, "1"]}), "random", 4, seed=0)) == 4
    assert len(sample(spaces(a={"uniform": [0.0, 1.0]}), "random", 8, seed=0)) == 8


def test_more_trials_keep_the_first_points() -> None:
    space = spaces(a={"uniform": [0.0, 1.0]}, b={"choice": ["x", "y"]})
    assert sample(space, "random", 9, seed=3)[:5] == sample(space, "random", 5, seed=3)


def test_the_base_is_tried_first_when_the_space_has_its_values() -> None:
    space = spaces(**{"train.lr": {"log_uniform": [1e-4, 1e-2]}, "transfer.freeze_d": {"int": [0, 3]}})
    base = {"train": {"lr": 1e-3, "kimg": 8}, "transfer": {"freeze_d": 1}}
    points = sample(space, "random", 3, 0, base)
    assert points[0] == {"train.lr": 1e-3, "transfer.freeze_d": 1}
    assert points[1:] == sample(space, "random", 2, 0)
    for other in ({"transfer": {"freeze_d": 1}}, {"train": {"lr": 1.0}, "transfer": {"freeze_d": 1}}, {"train": 1}):
        assert sample(space, "random", 3, 0, other) == sample(space, "random", 3, 0)
    assert sample(spaces(a={"choice": ["x", "y"]}), "grid", 2, 0, {"a": "y"}) == [{"a": "x"}, {"a": "y"}]


@pytest.fixture
def job() -> SweepJob:
    base = {"kind": "pretrain", "name": "b", "data": {"source": "digits"}, "train": {"kimg": 4, "batch_size": 32}}
    space = {"train.kimg": {"choice": [2.0, 8.0]}, "train.seed": {"int": [0, 2]}}
    stop = {"scheduler": "asha", "grace_kimg": 1, "eta": 2}
    found = parse_job({"kind": "sweep", "name": "s", "base": base, "space": space, "early_stop": stop})
    assert isinstance(found, SweepJob)
    return found


def test_rungs_and_grid(job: SweepJob) -> None:
    """The budget may be searched: a trial's rungs are below its own."""
    rule = rule_of(job, [])
    assert [rule.marks(0, total_of(job, {"train.kimg": kimg})) for kimg in (8.0, 2.0)] == [(1000, 2000, 4000), (1000,)]
    assert total_of(job, {"train.seed": 1}) == 4000
    assert grid_size(job.space) == 6


def test_a_finalist_that_is_not_a_number_never_wins() -> None:
    scores = {"000": float("nan"), "001": 0.2, "002": 0.1, "003": float("inf")}
    assert best_of(scores, "min") == "002"
    assert best_of(scores, "max") == "001"
    with pytest.raises(RunFailed, match="000 gave nan"):
        best_of({"000": float("nan")}, "min")


def test_only_numbers_are_published(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"name": "kid", "value": 0.1}, {"name": "fid", "value": float("nan")}]
    assert finite(rows) == rows[:1]
    assert "fid is nan" in caplog.text


def test_a_training_in_bf16_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for precision in ("fp32", "bf16"):
        Progress(Context())("p-1", {"type": "started", "total": 8000, "workers": 2, "precision": precision})
    assert capsys.readouterr().err.splitlines() == [
        "p-1  training for 8 kimg on 2 workers",
        "p-1  training for 8 kimg on 2 workers, in bf16",
    ]


@pytest.mark.parametrize(("mode", "best"), [("min", "0.2"), ("max", "0.7")])
def test_the_best_trial_told_is_the_best(mode: str, best: str) -> None:
    told: list[str] = []
    progress = Progress(Context())
    progress.bars = SimpleNamespace(
        add_task=lambda *_, **__: 0, update=lambda task, **changes: told.append(changes["told"])
    )
    for name, value in (("000", 0.2), ("001", 0.7)):
        event = {"type": "trial", "trial": name, "state": "running", "objective": value, "nimg": 1, "params": {}}
        progress("s-1", {**event, "reason": None, "mode": mode})
    assert told[-1] == f"0/2 trials  best {best}"
