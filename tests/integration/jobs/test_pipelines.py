"""Pipelines: order, branches side by side, failure of a stage, what is passed from stage to stage."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cluster.job import PipelineJob
from cluster.specfile import parse_job
from jobs.execute import execute
from jobs.pipeline import demand
from jobs.session import Session
from tlgan.errors import BackendError, RunFailed, RunStopped

Events = list[tuple[str, dict[str, Any]]]


def tiny(name: str, kind: str = "pretrain", **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "data": {"source": "digits"},
        "train": {"kimg": 1, "batch_size": 32},
        "output": {"artifact": name},
        **more,
    }
    if kind == "pretrain":
        spec.setdefault("model", {"width": 8, "latent_dim": 16})
    return spec


def pipeline(stages: dict[str, Any]) -> PipelineJob:
    job = parse_job({"kind": "pipeline", "name": "all", "stages": stages})
    assert isinstance(job, PipelineJob)
    return job


def test_a_stage_gets_what_the_one_before_made(session: Session) -> None:
    child = tiny("child", "finetune", init_from={"stage": "base"}, transfer={"method": "finetune"})
    record = execute(pipeline({"base": {"run": tiny("base")}, "tune": {"run": child, "needs": ["base"]}}), session)
    base, made = (session.artifacts.resolve(o["ref"]) for o in record.outputs)
    assert made.name == "child"
    assert ("init_from", base.digest) in {(p.role, p.digest) for p in made.parents}
    assert record.facts["stages"]["tune"]["outputs"] == [record.outputs[1]]


def test_only_what_changed_is_run_again(session: Session, events: Events) -> None:
    def job(kimg: float) -> PipelineJob:
        child = tiny("child", "finetune", init_from={"stage": "base"}, train={"kimg": kimg, "batch_size": 32})
        return pipeline({"base": {"run": tiny("base")}, "tune": {"run": child, "needs": ["base"]}})

    execute(job(0.5), session)
    events.clear()
    execute(job(1.0), session)
    cached = [run for run, event in events if event["type"] == "cached"]
    assert [run.rpartition("-")[0] for run in cached] == ["base"]
    trained = [run for run, event in events if event["type"] == "trained"]
    assert [run.rpartition("-")[0] for run in trained] == ["child"]


def test_a_stage_waits_for_a_store_that_is_away(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its stages a pipeline reads and writes more than a run, and nobody is there to say it again."""
    child = tiny("child", "finetune", init_from={"stage": "base"}, transfer={"method": "finetune"})
    job = pipeline({"base": {"run": tiny("base")}, "tune": {"run": child, "needs": ["base"]}})
    away = [BackendError("503"), BackendError("503")]
    resolve = session.artifacts.resolve

    def sometimes(ref: str, *given: Any, **more: Any) -> Any:
        if ref.startswith("base") and away:
            raise away.pop()
        return resolve(ref, *given, **more)

    monkeypatch.setattr(session.artifacts, "resolve", sometimes)
    monkeypatch.setattr("cluster.patience.FIRST_PAUSE", 0.01)
    assert execute(job, session).state == "succeeded"
    assert not away


def test_ray_is_begun_beside_a_stage_that_takes_long(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the main thread then takes the signals back that Ray took."""
    begun, taken = threading.Event(), threading.Event()

    def take_back() -> None:
        if begun.is_set() and threading.current_thread() is threading.main_thread():
            taken.set()

    monkeypatch.setattr(session.ray, "connect_ahead", begun.set)
    monkeypatch.setattr(session.ray, "take_signals_back", take_back)

    def hold(run: str, event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            begun.wait(20)
            taken.wait(20)
            session.interrupted.set()

    session.listener = hold
    child = tiny("child", "finetune", init_from={"stage": "base"}, resources={"workers": 1})
    with pytest.raises(RunStopped):
        execute(pipeline({"base": {"run": tiny("base")}, "tune": {"run": child, "needs": ["base"]}}), session)
    assert begun.is_set()
    assert taken.is_set()


def test_a_failing_stage_fails_the_pipeline_and_what_needs_it_does_not_start(session: Session, events: Events) -> None:
    stages = {
        "bad": {"run": tiny("bad", train={"kimg": 1, "batch_size": 32, "lr_g": 1e30, "lr_d": 1e30})},
        "after": {"run": tiny("after", "finetune", init_from={"stage": "bad"}), "needs": ["bad"]},
    }
    with pytest.raises(RunFailed, match="diverged"):
        execute(pipeline(stages), session)
    assert "diverged" in (session.runs.get("all").reason or "")
    assert session.runs.get("bad").state == "failed"
    assert {r.name for r in session.runs.list()} == {"all", "bad"}


@pytest.mark.minutes
@pytest.mark.ray
@pytest.mark.timeout(200)
def test_independent_branches_run_side_by_side(shared_ray: Any, session: Session, events: Events) -> None:
    one = {"workers": 1, "cpus_per_worker": 1}
    job = pipeline({name: {"run": tiny(name, resources=one, metrics=[])} for name in ("left", "right")})
    assert [demand(stage.run) for stage in job.stages.values()] == [1, 1]
    if shared_ray.cluster_resources()["CPU"] < 2:
        pytest.skip("one processor: nothing runs side by side")
    record = execute(job, session)
    assert {o["ref"].partition("@")[0] for o in record.outputs} == {"left", "right"}
    states = [(run.partition("-")[0], event["state"]) for run, event in events if event["type"] == "run"]
    begun = [name for name, state in states if state == "running" and name != "all"]
    first_end = next(i for i, (name, state) in enumerate(states) if name != "all" and state == "succeeded")
    assert sorted(begun) == ["left", "right"]
    assert {name for name, _ in states[:first_end]} >= {"left", "right"}, "both had begun before one had ended"
