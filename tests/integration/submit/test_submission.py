"""What a submission pins, writes and refuses, before any driver runs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dialects import Proxy
from roles import Enforces
from servers import S3Server, policy_of

from cluster.client import Client
from cluster.code import ARTIFACT, bundle, fetch_code, push_code
from cluster.control import resume_run, stop_run
from cluster.outcome import outcome_error, standing
from cluster.runs import Runs
from cluster.specfile import parse_job
from cluster.store import ArtifactStore
from cluster.submission import submit
from jobs.cli import main
from jobs.execute import Given, execute
from jobs.output import Context
from jobs.session import Session
from jobs.verbs.submit import tell
from tlgan.errors import BackendError, Conflict, Infeasible, IntegrityError, NotFound, RunStopped

Job = Callable[..., Any]


def document(artifacts: ArtifactStore, run_id: str) -> dict[str, Any]:
    record = Runs(artifacts.store).get(run_id)
    assert record.submission is not None
    found: dict[str, Any] = Runs(artifacts.store).get_json(run_id, f"submissions/{record.submission['id']}.json")
    return found


def test_what_a_driver_needs_is_in_the_store_and_no_secret(
    artifacts: ArtifactStore, stub: Any, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key-itself")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the-token-itself")
    submitted = submit(job(), artifacts, stub)
    assert submitted.started
    assert submitted.record.state == "pending"
    told = document(artifacts, submitted.record.id)
    assert told["spec"]["train"]["kimg"] == 0.5
    assert {"torch", "ray", "numpy"} <= set(told["environment"]["packages"])
    assert told["code"]["ref"].startswith(f"{ARTIFACT}@")
    assert [ticket.submission for ticket in stub.tickets] == [told["id"]]
    for info in artifacts.store.list():
        data = artifacts.store.get(info.key)
        assert b"the-secret-key-itself" not in data, info.key
        assert b"the-token-itself" not in data, info.key


def test_aliases_become_digests_once(artifacts: ArtifactStore, stub: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    first = artifacts.push("parent", tmp_path / "a.txt", kind="gan")
    spec = {
        "kind": "finetune",
        "name": "child",
        "init_from": {"artifact": "parent:latest"},
        "data": {"source": "digits"},
    }
    child = parse_job({**spec, "train": {"kimg": 1, "batch_size": 32}})
    before = submit(child, artifacts, stub).record
    assert before.inputs == {"init_from": {"ref": "parent:latest", "digest": first.digest}}
    assert document(artifacts, before.id)["spec"]["init_from"] == {"artifact": first.ref}
    (tmp_path / "a.txt").write_text("two")
    artifacts.push("parent", tmp_path / "a.txt", kind="gan")
    assert submit(child, artifacts, stub).record.id != before.id, "another parent makes another run"
    with pytest.raises(NotFound, match="parnet"):
        submit(parse_job({**child.to_dict(), "init_from": {"artifact": "parnet:latest"}}), artifacts, stub)


def test_what_is_told_of_a_submission_hides_nothing_of_the_record(
    artifacts: ArtifactStore, stub: Any, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted = submit(job(), artifacts, stub)
    tell(Context(json=True, store=artifacts.url), submitted, [], followed=True)
    (line,) = capsys.readouterr().out.splitlines()  # the first of a stream
    told = json.loads(line)
    assert (told["submitted"], told["started"]) == (True, submitted.record.started)


def test_what_an_earlier_stage_publishes_stays_an_alias(
    artifacts: ArtifactStore, stub: Any, tmp_path: Path, job: Job
) -> None:
    (tmp_path / "a.txt").write_text("one")
    artifacts.push("tiny-gan", tmp_path / "a.txt", kind="gan")
    draw = {"kind": "generate", "name": "draw", "target": {"artifact": "tiny-gan:latest"}}
    stages = {"base": {"run": job().to_dict()}, "draw": {"run": draw, "needs": ["base"]}}
    record = submit(parse_job({"kind": "pipeline", "name": "both", "stages": stages}), artifacts, stub).record
    stage = document(artifacts, record.id)["spec"]["stages"]["draw"]["run"]
    assert stage["target"] == {"artifact": "tiny-gan:latest"}
    assert stage["out"] == str(Path.cwd() / "draw.png"), "another process has another folder"


def test_another_spec_is_another_run_and_resources_are_not(artifacts: ArtifactStore, stub: Any, job: Job) -> None:
    first = submit(job(), artifacts, stub).record
    other = submit(job(train__seed=1), artifacts, stub).record
    assert (other.name, other.attempt) == (first.name, 0)
    assert other.id != first.id
    with pytest.raises(Conflict, match=f"run {first.id} was submitted before and waits to begin"):
        submit(job(resources__workers=1), artifacts, stub)
    stub = stub.model_copy(update={"state": "ended"})
    assert submit(job(resources__workers=1), artifacts, stub).resumes, "its driver never began"


def test_a_target_that_is_too_small_is_told_before_anything_is_stored(
    artifacts: ArtifactStore, stub: Any, job: Job, tmp_path: Path
) -> None:
    with pytest.raises(Infeasible, match=r"asks for 8 CPUs .* target stub has 2"):
        submit(job(resources__workers=8), artifacts, stub)
    assert not (tmp_path / "store").exists()
    assert stub.tickets == []


def test_a_start_that_fails_is_recorded(
    artifacts: ArtifactStore, stub: Any, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, ticket: Any) -> Any:
        raise BackendError("the cluster went away")

    monkeypatch.setattr(type(stub), "start", refuse)
    with pytest.raises(BackendError, match="went away"):
        submit(job(), artifacts, stub)
    record = Runs(artifacts.store).get("tiny")
    assert (record.state, record.reason) == ("failed", "it could not be started: the cluster went away")


def test_a_run_stopped_before_it_began_does_not_begin(artifacts: ArtifactStore, stub: Any, job: Job) -> None:
    """Its driver comes late, as on a cluster that was full."""
    runs = Runs(artifacts.store)
    record = submit(job(), artifacts, stub).record
    submission = (record.submission or {})["id"]
    assert stop_run(runs, record, now=True)
    assert runs.get(record.id).reason == "ended at once by a person"
    with (
        Session(artifacts) as session,
        pytest.raises(RunStopped, match="is stopped already: ended at once by a person"),
    ):
        execute(job(), session, Given(record.id, submission))
    assert (runs.get(record.id).state, runs.get(record.id).attempt) == ("stopped", 0)


def test_a_driver_of_an_older_submission_leaves(artifacts: ArtifactStore, stub: Any, job: Job) -> None:
    old = submit(job(), artifacts, stub).record
    submit(job(), artifacts, stub.model_copy(update={"state": "ended"}))
    with Session(artifacts) as session, pytest.raises(Conflict, match="was submitted again meanwhile"):
        execute(job(), session, Given(old.id, (old.submission or {})["id"]))


def test_what_a_run_began_with_must_stay(artifacts: ArtifactStore, stub: Any, job: Job) -> None:
    record = submit(job(), artifacts, stub).record
    Runs(artifacts.store).update(record.id, state="failed", reason="x")
    with pytest.raises(Conflict, match=r"another spec: train\.lr_g is 0\.01 and was not given"):
        resume_run(record, job(train__lr_g=0.01), artifacts, stub)
    again = resume_run(record, job(resources__workers=2), artifacts, stub).record
    assert (again.id, again.state) == (record.id, "pending")
    assert again.spec["resources"] == {"workers": 2}


def test_a_run_whose_data_changed_does_not_go_on(artifacts: ArtifactStore, stub: Any, job: Job) -> None:
    record = submit(job(), artifacts, stub).record
    other = {"data": {"ref": "digits", "digest": "0" * 64}}
    Runs(artifacts.store).update(record.id, attempt=1, inputs=other, recipe=None)
    with Session(artifacts) as session, pytest.raises(Conflict, match=r"input data is .* and was 0000000000000000"):
        execute(job(), session, Given(record.id, (record.submission or {})["id"]))


def test_the_code_is_the_same_bytes_from_anywhere_and_only_tlgans(artifacts: ArtifactStore, tmp_path: Path) -> None:
    assert bundle() == bundle()
    manifest = push_code(artifacts)
    assert push_code(artifacts) == manifest
    folder = fetch_code(artifacts, manifest.ref)
    assert {path.name for path in folder.iterdir()} == {"tlgan", "cluster", "jobs"}
    assert (folder / "jobs" / "specs" / "pretrain.yaml").is_file()
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("../outside.py", "x = 1")
    bad = artifacts.push("bad", {"code.zip": tmp_path / "code.zip"}, kind="code")
    with pytest.raises(IntegrityError, match="none of tlgan's"):
        fetch_code(artifacts, bad.ref)
    (tmp_path / "notes.txt").write_text("no code")
    with pytest.raises(IntegrityError, match="no code of tlgan"):
        fetch_code(artifacts, artifacts.push("notes", tmp_path / "notes.txt", kind="files").ref)


def test_states_and_next_steps(artifacts: ArtifactStore, stub: Any, job: Job) -> None:
    runs = Runs(artifacts.store)
    record = submit(job(), artifacts, stub).record
    assert standing(runs.store, record).text == "pending (its process is gone)"
    assert standing(runs.store, record).next_steps == [f"tlgan logs {record.id}", f"tlgan resume {record.id}"]
    told = {**(record.submission or {}), "handle": {"job": "of-a-cluster"}}
    waits = runs.update(record.id, submission=told)
    verbs = (f"logs {record.id} -f", f"wait {record.id}", f"stop {record.id}")
    assert standing(runs.store, waits).next_steps == [f"tlgan {verb}" for verb in verbs]
    lost = runs.update(record.id, state="running", host="elsewhere", attempt=1)
    runs.store.put(f"runs/{record.id}/alive/1.json", b"{}")
    assert standing(runs.store, lost).text == "running"
    failed = runs.update(
        record.id, state="failed", reason="kid was too large", failure={"code": "gate_failed", "exit_code": 7}
    )
    error = outcome_error(failed)
    assert error is not None
    assert (error.exit_code, error.message) == (7, f"run {record.id} failed: kid was too large")
    assert (
        standing(runs.store, failed).next_steps == [error.hint] == [f"tlgan metrics {record.id}"]
    )  # it would fail again
    collapsed = runs.update(record.id, failure={"code": "collapsed", "exit_code": 100})
    assert standing(runs.store, collapsed).next_steps == [f"tlgan report {record.id}"]
    failed = runs.update(record.id, failure={"code": "internal", "exit_code": 1})
    assert standing(runs.store, failed).next_steps == [f"tlgan logs {record.id}", f"tlgan resume {record.id}"]


def test_a_submitted_run_that_was_done_before_shows_what_that_one_did(
    artifacts: ArtifactStore, stub: Any, job: Job, workdir: Path
) -> None:
    with Session(artifacts) as session:
        first = execute(job(), session)
        record = submit(job(), artifacts, stub).record
        again = execute(job(), session, Given(record.id, (record.submission or {})["id"]))
    assert again.id == record.id != first.id
    assert (again.state, again.reason) == ("succeeded", f"unchanged: it was done before, by {first.id}")
    assert first.done_by == again.done_by == first.id
    assert main(["grid", again.id, "--store", artifacts.url]) == 0
    assert Path(f"{first.id}.png").is_file()


@pytest.fixture
def reader(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket that may only be read."""
    moto_server.use(monkeypatch)
    bucket = moto_server.new_bucket()
    dialect = Enforces()
    dialect.statements = policy_of("reader", bucket, "models")
    proxy = Proxy(moto_server, dialect)
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
    yield f"s3://{bucket}/models"
    proxy.http.shutdown()
    proxy.http.server_close()


def test_a_store_that_forbids_writes(reader: str, spec: Path, run: Any) -> None:
    code, out, err = run("submit", str(spec), "--store", reader, "--json")
    assert (code, out) == (5, "")
    assert "refuses the credentials" in json.loads(err.splitlines()[-1])["error"]["message"]
    assert Client(reader).ls() == []


def test_a_list_that_is_watched_tells_what_changes(
    stub: Any, job: Job, spec: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on a terminal: a line for each run whose state has changed, none for the others."""
    artifacts = ArtifactStore()
    record = submit(job(), artifacts, stub).record
    submit(job(train__seed=1), artifacts, stub)
    calls: list[float] = []

    def sleep(seconds: float) -> None:
        calls.append(seconds)
        if len(calls) > 2:
            raise KeyboardInterrupt
        Runs(artifacts.store).update(record.id, state="failed", reason="x")

    monkeypatch.setattr("jobs.verbs.watch.time", SimpleNamespace(sleep=sleep))  # not for other threads
    code, out, _ = run("ls", "-w")
    assert code == 130
    assert [line.split("  ")[1] for line in out.splitlines()] == ["pretrain pending (its process is gone)"] * 2 + [
        "pretrain failed"
    ]
