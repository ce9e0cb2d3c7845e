"""What a trial does with the driver's answers, and with numbers that are none. No Ray is started."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from simulated import Simulation, sweep

from cluster.search.build import director_of
from cluster.store import open_store
from cluster.task import GanTask
from cluster.tuner import Conductor, resources_of
from cluster.turn import Line, _here, answer_key

GO, STOP, PARK = {"do": "go"}, {"do": "stop"}, {"do": "park"}


@pytest.fixture
def task(tmp_path: Path) -> GanTask:
    recipe = {"train": {"kimg": 4.0}}
    return GanTask("s-1/trials/000", str(tmp_path), recipe, "w", objective=("kid", "min"), attempt=2)


@pytest.mark.parametrize(("answer", "ends"), [(GO, False), (STOP, True), (PARK, True)])
def test_an_answer_is_obeyed(task: GanTask, answer: dict[str, str], ends: bool) -> None:
    told: list[tuple[int, float]] = []
    line = Line(task.open_store(), task, True, lambda nimg, value: told.append((nimg, value)))
    task.open_store().put(answer_key(task, 1000), json.dumps(answer).encode())
    assert line.measured(1000, {"kid": 0.5, "fid": 3.0}) is ends
    assert told == [(1000, 0.5)]
    assert line.following() is None


def test_answers_to_an_earlier_attempt_are_not_taken(task: GanTask) -> None:
    line = Line(task.open_store(), task, True, lambda nimg, value: None, patience=0.1)
    task.open_store().put("runs/s-1/trials/000/answers/1-1000.json", json.dumps(GO).encode())
    assert line.measured(1000, {"kid": 0.5})
    assert line.answer is None


def test_nobody_is_waited_for_at_the_end_or_where_nothing_is_decided(task: GanTask) -> None:
    for waits, nimg in ((True, 4000), (False, 1000)):
        line = Line(task.open_store(), task, waits, lambda nimg, value: None)
        assert not line.measured(nimg, {"kid": 0.5})


def test_a_measurement_that_is_no_number_fails_the_trial_and_tells_nobody(task: GanTask) -> None:
    told: list[int] = []
    line = Line(task.open_store(), task, True, lambda nimg, value: told.append(nimg))
    assert line.measured(1000, {"kid": float("nan")})
    assert not told
    assert line.failure
    assert "kid is nan at 1 kimg" in str(line.failure)


def test_a_budget_that_is_used_up_ends_the_wait(task: GanTask) -> None:
    task.open_store().put(answer_key(task, "over"), b"{}")
    line = Line(task.open_store(), task, True, lambda nimg, value: None)
    assert line.measured(1000, {"kid": 0.5})
    assert line.asked()


def test_the_conductor_hands_out_turns_tells_changes_and_passes_answers_on(tmp_path: Path) -> None:
    job = sweep({"trials": 2, "parallel": 2}, {"scheduler": "asha", "grace_kimg": 9})
    director, rows = director_of(job, Simulation(job, 0).ledger()), []
    store = open_store(str(tmp_path))

    def task_of(turn: Any) -> GanTask:
        return GanTask(
            f"s-1/trials/{turn.trial}", str(tmp_path), {"train": {"kimg": 27}}, "w", objective=("kid", "min")
        )

    conductor = Conductor(job, director, task_of, rows.append)
    configs = [conductor.next(), conductor.next()]
    assert [config and config["trial"] for config in configs] == ["000", "001"]
    assert conductor.next() is None
    for name in ("000", "001"):
        conductor.begun(name)
    conductor.heard("001", {"nimg": 9024, "value": 0.7})
    assert not list(store.list("runs/s-1/trials/001/answers/")), "trial 000 has not been there yet"
    conductor.heard("000", {"nimg": 9024, "value": 0.5})
    answers = {
        name: json.loads(store.get(f"runs/s-1/trials/{name}/answers/1-9024.json"))["do"] for name in ("000", "001")
    }
    assert answers == {"000": "go", "001": "stop"}
    conductor.ended("001", failed=False)
    conductor.ended("000", failed=True)
    assert [(row.trial, row.state) for row in rows[-2:]] == [("001", "stopped"), ("000", "paused")], (
        "it gets another worker"
    )
    again = conductor.next()
    assert again
    assert again["trial"] == "000"


@pytest.mark.parametrize("ours", [True, False])
def test_the_last_trial_gets_the_others_processors_in_a_ray_of_our_own(task: GanTask, ours: bool) -> None:
    early = {"scheduler": "hyperband", "grace_kimg": 13, "eta": 2}
    job = sweep({"trials": 2, "parallel": 2}, early)
    director = director_of(job, Simulation(job, 0).ledger())
    conductor = Conductor(
        job, director, lambda turn: replace(task, run=f"s-1/trials/{turn.trial}"), lambda row: None, idle_is_ours=ours
    )
    for value in (0.7, 0.5):
        told = conductor.next()
        assert told
        assert json.loads(told["turn"])["task"]["threads"] is None
        conductor.begun(told["trial"])
        conductor.heard(told["trial"], {"nimg": 13500, "value": value})
    key = answer_key(conductor.tasks["001"], 13500)
    assert json.loads(task.open_store().get(key)) == {"do": "go", **({"threads": 2} if ours else {})}
    conductor.ended("000", failed=False)
    conductor.ended("001", failed=True)
    again = conductor.next()  # its worker died: another goes on from the checkpoint
    assert again
    assert json.loads(again["turn"])["task"]["threads"] == (2 if ours else None)


def test_threads_are_taken_up_at_the_answer(task: GanTask) -> None:
    before = torch.get_num_threads()
    line = Line(task.open_store(), task, True, lambda nimg, value: None)
    task.open_store().put(answer_key(task, 1000), json.dumps({**GO, "threads": before + 1}).encode())
    try:
        assert not line.measured(1000, {"kid": 0.5})
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_the_next_trial_of_an_actor_has_its_own_threads(task: GanTask, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("cluster.turn.run_gan", lambda *_: torch.set_num_threads(before + 1) or True)
    assert _here(Line(task.open_store(), task, True, lambda nimg, value: None))
    assert torch.get_num_threads() == before


def test_what_a_trial_can_not_share_stays_its_own(task: GanTask) -> None:
    for changes in ({"workers": 2}, {"gpus_per_worker": 1}):
        job = sweep({"trials": 2, "parallel": 4})
        resources = job.base.resources.model_copy(update=changes)
        job = job.model_copy(update={"base": job.base.model_copy(update={"resources": resources})})
        director = director_of(job, Simulation(job, 0).ledger())
        assert Conductor(job, director, lambda turn: task, lambda row: None, idle_is_ours=True).threads(1) is None


def test_trials_share_a_gpu_by_fractions() -> None:
    job = sweep({"trials": 2})
    resources = job.base.resources
    for changes, wanted in (
        ({"gpus_per_worker": 0.25}, {"cpu": 1, "gpu": 0.25}),
        ({"workers": 1, "cpus_per_worker": 2}, {"cpu": 2, "gpu": 0}),
        ({"workers": 4, "gpus_per_worker": 1}, {"cpu": 0, "memory": 1}),  # its Ray Train workers hold them
    ):
        base = job.base.model_copy(update={"resources": resources.model_copy(update=changes)})
        assert resources_of(job.model_copy(update={"base": base})) == wanted
