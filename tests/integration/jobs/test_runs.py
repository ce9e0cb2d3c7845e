"""Jobs in this process, without Ray: records, caching, stopping and resuming, publishing, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlgan
from cluster.client import Client
from cluster.runs import birth_of
from cluster.specfile import parse_job
from jobs.cli import main
from jobs.execute import execute
from jobs.session import Session
from tlgan.artifact import load_generator
from tlgan.errors import Conflict, NotFound, RunFailed, RunStopped, SpecError
from tlgan.models.mining import miner_of

Events = list[tuple[str, dict[str, Any]]]


def types(events: Events) -> list[str]:
    return [event["type"] for _, event in events]


def test_a_pretraining_is_recorded_and_published(
    session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    record = execute(pretrain(), session)
    assert record.state == "succeeded"
    assert record.id.startswith("tiny-")
    manifest = session.artifacts.resolve("tiny-gan:latest")
    assert [o["ref"] for o in record.outputs] == [manifest.ref]
    assert manifest.facts["data"]["count"] == 1797
    assert manifest.recipe is not None
    assert manifest.recipe["train"]["kimg"] == 1
    assert [p.role for p in manifest.parents] == ["data"]
    stored = list(session.runs.events(record.id))
    assert {"started", "progress", "grid", "checkpoint", "trained", "run"} <= {event["type"] for event in stored}
    assert session.runs.grids(record.id)
    path = Client(session.artifacts.url).pull("tiny-gan:latest")
    images = tlgan.generate(tlgan.load_generator(path), n=3, seed=0)
    assert images.shape == (3, 1, 32, 32)


def test_an_unchanged_run_is_not_run_again(session: Session, pretrain: Callable[..., Any], events: Events) -> None:
    first = execute(pretrain(), session)
    events.clear()
    again = execute(pretrain(), session)
    assert again.id == first.id
    assert types(events) == ["cached"]
    other = execute(pretrain(train__seed=1), session)
    assert other.id != first.id
    session.artifacts.resolve("tiny-gan:latest")
    execute(pretrain(), session)
    latest = session.artifacts.resolve("tiny-gan:latest")
    assert latest.ref == first.outputs[0]["ref"], "the alias follows the run that was asked for last"


def test_fresh_runs_again_and_gives_the_same_bytes(session: Session, pretrain: Callable[..., Any]) -> None:
    first = session.artifacts.resolve(execute(pretrain(), session).outputs[0]["ref"])
    session.fresh = True
    record = execute(pretrain(), session)
    second = session.artifacts.resolve(record.outputs[0]["ref"])
    assert record.attempt == 2
    weights = {f.path: f.sha256 for f in first.files if f.path.endswith("safetensors")}
    assert weights == {f.path: f.sha256 for f in second.files if f.path.endswith("safetensors")}


def test_a_stopped_run_resumes_to_the_same_weights(
    session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    whole = execute(pretrain(name="whole", train__kimg=2), session)
    job = pretrain(train__kimg=2, checkpoint__every_kimg=0.5)

    def interrupt(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == "checkpoint":
            session.interrupted.set()

    session.listener = interrupt
    with pytest.raises(RunStopped):
        execute(job, session)
    stopped = session.runs.get("tiny")
    assert stopped.state == "stopped"
    assert not session.artifacts.versions("tiny-gan")[1:], "nothing of it was published"
    session.interrupted.clear()
    session.listener = lambda run, event: events.append((run, event))
    events.clear()
    record = execute(job, session)
    assert record.id == stopped.id
    assert record.attempt == 2
    assert "resumed" in types(events)
    files = [session.artifacts.resolve(r.outputs[0]["ref"]).files for r in (whole, record)]
    a, b = ({f.path: f.sha256 for f in one if f.path.endswith("safetensors")} for one in files)
    assert a == b


def test_a_name_that_another_recipe_has_taken_makes_a_run_of_its_own(
    session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    def stop(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == "checkpoint":
            session.interrupted.set()

    session.listener = stop
    with pytest.raises(RunStopped):
        execute(pretrain(checkpoint__every_kimg=0.2), session)
    session.interrupted.clear()
    events.clear()
    session.listener = lambda run, event: events.append((run, event))
    stopped = session.runs.get("tiny")
    other = execute(pretrain(checkpoint__every_kimg=0.2, train__seed=1), session)
    assert (other.name, other.attempt) == ("tiny", 1)
    assert other.id != stopped.id
    assert "resumed" not in [event["type"] for _, event in events]
    assert session.runs.get(stopped.id) == stopped


def test_a_run_goes_on_on_another_machine(
    session: Session, pretrain: Callable[..., Any], tmp_path: Path, events: Events
) -> None:
    """The local scratch is gone; the checkpoint comes from the store."""
    job = pretrain(train__kimg=2, checkpoint__every_kimg=0.5)
    session.listener = lambda run, event: session.interrupted.set() if event["type"] == "checkpoint" else None
    with pytest.raises(RunStopped):
        execute(job, session)
    session.interrupted.clear()
    session.listener = lambda run, event: events.append((run, event))
    session.work = tmp_path / "elsewhere"
    assert execute(job, session).state == "succeeded"
    resumed = next(event for _, event in events if event["type"] == "resumed")
    assert resumed["nimg"] >= 500
    assert not list(session.artifacts.store.list(f"runs/{session.runs.get('tiny').id}/checkpoints/"))


def test_stop_json_in_the_store_stops_a_run(session: Session, pretrain: Callable[..., Any]) -> None:
    def ask(run: str, event: dict[str, Any]) -> None:
        if event["type"] == "started":
            session.runs.put_json(run, "stop-1.json", {})

    session.listener = ask
    with pytest.raises(RunStopped):
        execute(pretrain(train__kimg=20), session)
    assert session.runs.get("tiny").state == "stopped"


def test_a_diverging_run_fails_with_its_reason(session: Session, pretrain: Callable[..., Any]) -> None:
    with pytest.raises(RunFailed, match="diverged"):
        execute(pretrain(train__lr_g=1e30, train__lr_d=1e30), session)
    record = session.runs.get("tiny")
    assert record.state == "failed"
    assert "diverged" in (record.reason or "")
    assert session.artifacts.versions("tiny-gan") == []


def test_a_running_run_is_not_started_twice(session: Session, pretrain: Callable[..., Any]) -> None:
    record = execute(pretrain(), session)
    session.runs.update(record.id, state="running", pid=1, process=birth_of(1))
    with pytest.raises(Conflict, match="running already"):
        execute(pretrain(), session)


def test_finetune_freezes_shares_and_reports_coverage(
    session: Session, pretrain: Callable[..., Any], events: Events
) -> None:
    parent = session.artifacts.resolve(execute(pretrain(), session).outputs[0]["ref"])
    spec = {
        "kind": "finetune",
        "name": "child",
        "init_from": {"artifact": "tiny-gan:latest"},
        "data": {"source": "digits", "split": "train", "limit": 100},
        "transfer": {"method": "freeze", "freeze_d": 2, "freeze_g": 1},
        "train": {"kimg": 0.5, "batch_size": 32},
    }
    events.clear()
    record = execute(parse_job(spec), session)
    child = session.artifacts.resolve(record.outputs[0]["ref"])
    assert ("init_from", parent.digest) in {(p.role, p.digest) for p in child.parents}
    digests = {f.path: f.sha256 for f in parent.files}
    same = {f.path for f in child.files if digests.get(f.path) == f.sha256}
    assert {"D/b32.safetensors", "D/b16.safetensors", "G_ema/b4.safetensors"} <= same
    assert not {"D/b8.safetensors", "G_ema/b8.safetensors"} & same
    coverage = next(event["coverage"] for _, event in events if event["type"] == "transfer")
    assert coverage["matched"]["G"] > 0
    assert not any(coverage["missing"].values())
    assert coverage["frozen"]["D"] > 0
    sizes = session.artifacts.sizes(child.ref)
    assert sizes["stored_bytes"] < sizes["logical_bytes"]


def test_what_adapters_made_is_published_plain_and_can_be_a_parent(
    session: Session, pretrain: Callable[..., Any]
) -> None:
    parent = session.artifacts.resolve(execute(pretrain(), session).outputs[0]["ref"])
    of, files = "tiny-gan:latest", {f.path for f in parent.files}
    for method in ("singular_values", "minegan", "cdc"):
        spec = {
            "kind": "finetune",
            "name": method.replace("_", "-"),
            "init_from": {"artifact": of},
            "data": {"source": "digits", "split": "train", "limit": 100},
            "transfer": {"method": method},
            "train": {"kimg": 0.1, "batch_size": 32},
        }
        child = session.artifacts.resolve(execute(parse_job(spec), session).outputs[0]["ref"])
        assert {f.path for f in child.files} == files
        g = load_generator(session.artifacts.pull(child.ref))
        assert (miner_of(g) is None) == (method == "singular_values")  # a miner is part of the generator, and stays
        of = child.ref


def test_a_method_that_does_not_fit_the_parent_is_refused_before_the_run(
    session: Session, pretrain: Callable[..., Any]
) -> None:
    execute(pretrain(), session)
    spec = {
        "kind": "finetune",
        "name": "child",
        "init_from": {"artifact": "tiny-gan:latest"},
        "data": {"source": "digits"},
        "transfer": {"method": "freeze_mapping"},
        "train": {"kimg": 0.5, "batch_size": 32},
    }
    with pytest.raises(
        SpecError, match=r"transfer.method: freeze_mapping is for networks with styles .*; dcgan has none"
    ):
        execute(parse_job(spec), session)
    with pytest.raises(NotFound):
        session.runs.get("child")


def test_freezing_beyond_the_network_is_refused_before_the_run(session: Session, pretrain: Callable[..., Any]) -> None:
    execute(pretrain(), session)
    spec = {
        "kind": "finetune",
        "name": "child",
        "init_from": {"artifact": "tiny-gan:latest"},
        "data": {"source": "digits"},
        "transfer": {"method": "freeze", "freeze_d": 4},
        "train": {"kimg": 0.5, "batch_size": 32},
    }
    with pytest.raises(SpecError, match="at most 3"):
        execute(parse_job(spec), session)
    with pytest.raises(NotFound):
        session.runs.get("child")


@pytest.mark.parametrize(
    ("overrides", "code", "says"),
    [
        (["resources.workers=4000", "train.batch_size=4000"], 6, "4000 CPU"),
        (["data.source=folder", "data.path=nowhere"], 3, "nowhere"),
        (["model.resolution=64", "data.resolution=32"], 2, "32"),
        (["train.lr_g=fast"], 2, "fast"),
    ],
)
def test_exit_codes_and_messages(
    workdir: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], code: int, says: str
) -> None:
    text = {"kind": "pretrain", "name": "tiny", "data": {"source": "digits"}, "train": {"kimg": 1, "batch_size": 32}}
    Path("tiny.yaml").write_text(json.dumps(text))
    arguments = [a for o in overrides for a in ("-s", o)]
    assert main(["run", "tiny.yaml", *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error = json.loads(err.splitlines()[-1] if err.startswith("{") else err)["error"]
    assert says in error["message"]
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [], "no record of a run that never began"
    assert not Path(".tlgan/store/versions").exists()


def test_a_missing_artifact_suggests_near_names(session: Session, pretrain: Callable[..., Any]) -> None:
    execute(pretrain(), session)
    spec = {"kind": "evaluate", "name": "e", "target": {"artifact": "tiny-gam:latest"}, "data": {"source": "digits"}}
    with pytest.raises(NotFound, match="tiny-gan"):
        execute(parse_job(spec), session)


def test_an_unwritable_store_is_named(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    text = {"kind": "pretrain", "name": "tiny", "data": {"source": "digits"}, "train": {"kimg": 1, "batch_size": 32}}
    Path("tiny.yaml").write_text(json.dumps(text))
    assert main(["run", "tiny.yaml", "--store", "file/store"]) == 5
    assert "file/store" in capsys.readouterr().err
