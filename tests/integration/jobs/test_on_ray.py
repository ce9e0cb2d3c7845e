"""Jobs on a real Ray: two workers, a killed worker, sweeps with failing trials, the whole pipeline, S3."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from servers import S3Server, moto_server, rclone_server  # noqa: F401

from cluster.ray_daemons import has_api_server
from cluster.specfile import parse_job
from cluster.store import Version
from cluster.store.gc import Collector
from cluster.store.retention import Policy
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import BackendError, RunFailed, RunStopped

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
Events = list[tuple[str, dict[str, Any]]]


def check_layout(session: Session) -> None:
    """Nothing but what belongs there: Ray's bookkeeping is not in the store, and least of all among the versions."""
    keys = [info.key for info in session.artifacts.store.list()]
    assert {key.partition("/")[0] for key in keys} <= {"FORMAT.json", "aliases", "blobs", "leases", "runs", "versions"}
    assert all(Version.parse(key) for key in keys if key.startswith("versions/"))
    files = r"(run|finals|leaderboard|trial|(draft|error|stop)-\d+|left-[0-9a-f]+)\.json|grid\.png"
    own = rf"{files}|(events|grids|alive|checkpoints|logs|ledger)/.*"
    inside = [re.sub(r"^runs/[^/]+/(trials/\d+/)?", "", key) for key in keys if key.startswith("runs/")]
    assert [key for key in inside if not re.fullmatch(own, key)] == []


def test_a_run_goes_on_with_two_workers_and_survives_the_death_of_one(
    shared_ray: Any,
    session: Session,
    pretrain: Callable[..., Any],
    events: Events,
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed: list[int] = []
    beside: list[str] = []

    def kill_once(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == "checkpoint" and not killed:
            beside.extend(actors())
            killed.append(next(e["pid"] for _, e in events if e["type"] == "resumed"))
            os.kill(killed[0], signal.SIGKILL)

    whole = {"train__kimg": 8, "checkpoint__every_kimg": 2, "metrics": "[]"}
    stop_at_a_checkpoint(session, pretrain(**whole))
    session.listener = kill_once
    record = execute(pretrain(resources__workers=2, **whole), session)
    assert killed
    assert killed[0] != os.getpid()
    assert beside == ["RayTrainWorker", "RayTrainWorker"]
    assert (record.state, record.attempt) == ("succeeded", 2)
    (first, two), (second, again) = [(e["nimg"], e["workers"]) for _, e in events if e["type"] == "resumed"]
    assert (two, again) == (2, 2)
    assert 2000 <= first < 4000 <= second < 8000, "each from the newest checkpoint"
    assert max(event["nimg"] for _, event in events if event["type"] == "progress") == 8000
    assert capsys.readouterr().out == "", "Ray's words on the dead worker are for its log"
    assert session.artifacts.verify(record.outputs[0]["ref"], full=True).ok
    check_layout(session)


def actors() -> list[str]:
    """The kinds of the actors below this process, by what Ray calls their processes."""
    parents, titles = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            pid = int(stat.parent.name)
            parents[pid] = int(stat.read_text().rpartition(") ")[2].split()[1])
            titles[pid] = (stat.parent / "cmdline").read_text()
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    found = [re.match(r"ray::([A-Z][a-z]\w+)", title) for pid, title in titles.items() if pid in own]
    return [match[1] for match in found if match and not match[1].endswith("Agent")]


def test_drivers_and_workers_know_that_a_ray_of_our_own_has_no_api_server(shared_ray: Any) -> None:
    assert not has_api_server()
    assert not shared_ray.get(shared_ray.remote(has_api_server).remote())


def test_nothing_in_a_ray_of_our_own_gathers_what_a_dashboard_would_show(shared_ray: Any) -> None:
    shared_ray.get(shared_ray.remote(has_api_server).remote())
    time.sleep(1.5)  # Ray's processes tell of their tasks once a second
    assert shared_ray.timeline() == []


def stop_at_a_checkpoint(session: Session, job: Any) -> None:
    session.listener = lambda run, event: session.interrupted.set() if event["type"] == "checkpoint" else None
    with pytest.raises(RunStopped):
        execute(job, session)
    session.interrupted.clear()


@pytest.mark.minutes
def test_a_run_goes_on_with_another_number_of_workers_to_the_same_weights(
    shared_ray: Any, session: Session, pretrain: Callable[..., Any]
) -> None:
    """Stopped in this process, taken up by two workers of Ray: the same but for rounding."""
    small = {"train__kimg": 0.6, "checkpoint__every_kimg": 0.3, "metrics": "[]"}
    whole = weights_of(session, execute(pretrain(name="whole", output__artifact="whole", **small), session))
    stop_at_a_checkpoint(session, pretrain(**small))
    found = weights_of(session, execute(pretrain(resources__workers=2, **small), session))
    assert found.keys() == whole.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def weights_of(session: Session, record: Any) -> dict[str, Any]:
    folder = session.artifacts.pull(record.outputs[0]["ref"])
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.minutes
def test_a_worker_that_diverges_is_not_restarted(
    shared_ray: Any, session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    job = pretrain(resources__workers=1, train__lr_g=1e30, train__lr_d=1e30, metrics="[]")
    with pytest.raises(RunFailed, match="diverged"):
        execute(job, session)
    assert sum(event["type"] == "started" for _, event in events) == 1
    assert "diverged" in (session.runs.get("tiny").reason or "")


def test_a_sweep_publishes_its_best_and_survives_failing_trials(
    shared_ray: Any,
    session: Session,
    pretrain: Callable[..., Any],
    sweep: dict[str, Any],
    features: None,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = execute(pretrain(), session)
    away = [BackendError("503"), BackendError("503")]
    put = session.artifacts.store.put

    def sometimes(key: str, *given: Any, **more: Any) -> None:
        if key.endswith("trial.json") and away:
            raise away.pop()
        put(key, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(session.artifacts.store, "put", sometimes)
        record = execute(parse_job(sweep), session)
    assert not away, "the search waited for the store"
    best = session.artifacts.resolve("found:best")
    assert [p.digest for p in best.parents if p.role == "init_from"] == [parent.outputs[0]["digest"]]
    rows = session.runs.get_json(record.id, "leaderboard.json")
    assert [row["state"] == "failed" for row in rows] == [False, False, True, True]
    assert rows[0]["objective"] <= rows[1]["objective"]
    assert all(row["best_nimg"] <= row["nimg"] for row in rows if row["objective"] is not None)
    assert all("diverged" in row["reason"] for row in rows[2:])
    assert best.facts["trial"] == rows[0]["trial"]
    assert best.facts["params"] == rows[0]["params"]
    finals = [event for event in session.runs.events(record.id) if event["type"] == "metric"]
    assert {event["nimg"] for event in finals} == {rows[0]["best_nimg"]}, "of the networks that are published"
    kid = next(m for m in best.metrics if m["name"] == "kid")
    assert kid["protocol"]["samples_fake"] == 128, "the winner is measured again with more samples"
    for row in rows[:2]:
        grid = session.artifacts.store.get(f"runs/{record.id}/trials/{row['trial']}/grid.png")
        assert grid.startswith(b"\x89PNG")
    nimg = [event["nimg"] for _, event in events if event["type"] == "trial" and event["objective"] is not None]
    assert min(nimg) <= 1024 + 32, "the objective is reported at the first rung already"
    assert {file.path.partition("/")[0] for file in best.files if "/" in file.path} == {"D", "G_ema"}, (
        "not what a resume needs"
    )
    assert not list(session.artifacts.store.list("leases/")), "what is worth keeping is published, the rest is free"
    check_layout(session)

    events.clear()
    assert execute(parse_job(sweep), session).id == record.id
    assert [event["type"] for _, event in events] == ["cached"]


@pytest.mark.minutes
def test_trials_whose_networks_were_collected_are_trained_again(
    shared_ray: Any,
    session: Session,
    pretrain: Callable[..., Any],
    sweep: dict[str, Any],
    features: None,
    events: Events,
) -> None:
    """A sweep that failed at its end and is taken up when nothing protects the losers any more."""
    execute(pretrain(), session)
    sweep["space"] = {"transfer.freeze_d": {"choice": [0, 2]}}
    first = execute(parse_job(sweep), session)
    collector = Collector(session.artifacts.store, Policy(grace=timedelta(0)))
    assert collector.run(collector.plan()).blobs, "those of the loser"
    session.runs.update(first.id, state="failed")
    events.clear()
    again = execute(parse_job(sweep), session)
    assert (again.state, again.attempt) == ("succeeded", 2)
    trained = {event["trial"] for _, event in events if event["type"] == "trial" and event["state"] == "running"}
    assert trained == {"000", "001"} - {first.facts["winner"]}
    assert session.artifacts.verify(again.outputs[0]["ref"], full=True).ok


def test_a_sweep_of_failures_fails_with_the_reason(
    shared_ray: Any, session: Session, pretrain: Callable[..., Any], sweep: dict[str, Any], features: None
) -> None:
    execute(pretrain(), session)
    sweep["space"] = {"train.lr_d": {"choice": [1.0e30]}}
    with pytest.raises(RunFailed, match="all 1 trials failed: training diverged"):
        execute(parse_job(sweep), session)
    assert session.artifacts.versions("found") == []
