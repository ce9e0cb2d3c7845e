"""Target local: drivers that outlive the shell, are stopped, killed, taken up again. Real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.runs import RunRecord, Runs, birth_of
from cluster.store import open_store
from cluster.targets.base import Ticket
from cluster.targets.local import LocalTarget

pytestmark = pytest.mark.timeout(240)
Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]
LONG = ["-s", "train.kimg=400", "-s", "checkpoint.every_kimg=0.2"]


long = pytest.mark.skipif("TLGAN_LONG_TESTS" not in os.environ, reason="more drivers; set TLGAN_LONG_TESTS to run it")


def runs() -> Runs:
    return Runs(open_store())


def until(wanted: Callable[[RunRecord], bool], run_id: str) -> RunRecord:
    """The record once it is as wanted; gives up long after every deadline."""
    deadline = time.monotonic() + 180
    while not wanted(record := runs().get(run_id)):
        assert time.monotonic() < deadline, record
        time.sleep(0.05)
    return record


def has(run_id: str, kind: str) -> Callable[[RunRecord], bool]:
    return lambda _: any(event["type"] == kind for event in runs().events(run_id))


def group_of(record: RunRecord) -> int:
    return int((record.submission or {})["handle"]["pid"])


def test_a_run_outlives_the_shell_that_submitted_it(spec: Path, run: Run) -> None:
    """Submitted by a shell in a session of its own, which hangs up; edited sources don't matter to it any more."""
    command = f"{sys.executable} -P -m jobs.cli submit tiny.yaml --json; kill -HUP -$$"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    done = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env=env,
        start_new_session=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup it would be ignored
    )
    assert done.returncode == -signal.SIGHUP, done.stderr
    assert time.monotonic() - begun < 30
    told = json.loads(done.stdout)
    assert told["next"][0] == f"tlgan logs {told['id']} -f"
    code, out, err = run("wait", told["id"], "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["state"] == "succeeded"
    ref = record["outputs"][0]["ref"]
    code, out, _ = run("show", told["id"])
    assert f"next      tlgan pull {ref}" in out
    assert f"code {told['code']['ref']}" in out
    code, out, _ = run("logs", told["id"], "-f")
    assert f"pretrain succeeded  {ref}" in out
    assert run("logs", told["id"], "--rank", "0")[0] == 3, "it trained in the driver itself"

    code, out, err = run("submit", "tiny.yaml", "-f")
    assert (code, out.strip()) == (0, told["id"])
    assert "it was done before" in err
    code, out, err = run("run", "tiny.yaml")
    assert (code, out.strip()) == (0, ref)
    assert "unchanged, not run again" in err
    other = Client().submit("tiny.yaml", set=["resources.workers=0"])
    assert other == told["id"], "what a run takes does not change what it makes"
    assert Client().wait(other)["outputs"] == record["outputs"]


def test_stopping_resuming_and_a_driver_that_is_killed(spec: Path, run: Run) -> None:
    code, out, _ = run("submit", "tiny.yaml", *LONG)
    run_id = out.strip()
    assert run("submit", "tiny.yaml", *LONG)[0] == 4, "it is on its way"
    first = until(has(run_id, "checkpoint"), run_id)
    assert run("wait", run_id, "--timeout", "0.1")[0] == 101
    assert run("stop", run_id)[0] == 0
    code, _, err = run("wait", run_id)
    assert (code, "stopped by a person" in err) == (103, True)
    assert f"tlgan resume {run_id}" in run("show", run_id)[1]

    code, _, err = run("resume", run_id, "-s", "train.lr_g=0.01")
    assert (code, "train.lr_g is 0.01 and was not given" in err) == (4, True)
    assert run("resume", run_id)[0] == 0
    second = until(lambda record: record.attempt == 2 and has(run_id, "resumed")(record), run_id)
    assert group_of(first) != group_of(second)
    assert second.pid != group_of(second), "the driver's launcher lives on to tell"
    os.kill(second.pid, signal.SIGKILL)
    code, _, err = run("wait", run_id)
    assert code == 100
    assert "the driver was killed by SIGKILL: the system may have been out of memory" in err
    assert f"tlgan logs {run_id}" in run("show", run_id)[1]
    assert run("stop", run_id)[0] == 4


@long
@pytest.mark.slow
def test_ending_a_run_at_once(spec: Path, run: Run) -> None:
    run_id = Client().submit("tiny.yaml", on={"kind": "local"}, set=LONG[1::2])
    record = until(has(run_id, "progress"), run_id)
    begun = time.monotonic()
    assert run("stop", run_id, "--now")[0] == 0
    assert time.monotonic() - begun < 60
    with pytest.raises(ProcessLookupError):
        os.killpg(group_of(record), 0)
    assert run("wait", run_id)[0] == 103
    record = runs().get(run_id)
    assert (record.state, record.reason) == ("stopped", "ended at once by a person")


def test_a_group_that_does_not_listen_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.targets.local.GRACE_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        handle = {"host": socket.gethostname(), "pid": process.pid, "process": birth_of(process.pid), "log": ""}
        LocalTarget(name="local").end({**handle, "process": "another"})
        assert process.poll() is None, "a process that got the number later is left alone"
        LocalTarget(name="local").end(handle)
        assert process.wait(60) == -signal.SIGKILL


@long
@pytest.mark.slow
def test_when_launcher_and_driver_are_gone_a_wait_ends(spec: Path, run: Run) -> None:
    """As after a power cut: nobody is left to write the end down."""
    run_id = Client().submit("tiny.yaml", set=LONG[1::2])
    record = until(has(run_id, "progress"), run_id)
    os.killpg(group_of(record), signal.SIGKILL)
    code, _, err = run("wait", run_id)
    assert (code, "its process is gone" in err) == (100, True)
    assert f"next      tlgan logs {run_id}" in run("show", run_id)[1]
    assert "its process is gone" in run("ls")[1]


@long
@pytest.mark.slow
def test_data_that_is_not_there_fails_with_the_reason(spec: Path, run: Run) -> None:
    bad = ["-s", "data.source=folder", "-s", "data.path=cats"]
    code, out, _err = run("submit", "tiny.yaml", *bad, "-f")
    assert code == 100
    record = runs().get(out.splitlines()[0])
    assert str(Path("cats").absolute()) in (record.reason or "")
    assert (record.failure or {})["exit_code"] in (2, 3)


def test_the_request_of_a_local_target_is_what_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = LocalTarget(name="local", env={"OMP_NUM_THREADS": "3"})
    ticket = Ticket("r-1", "s", "pretrain", "file:///none", None, str(tmp_path))
    asked: dict[str, Any] = target.request(ticket)
    assert asked["env"]["OMP_NUM_THREADS"] == "3"
    handle = target.start(ticket)
    deadline = time.monotonic() + 60
    while target.progress(handle).state != "ended":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "there is no submission s of run r-1" in Path(asked["log"]).read_text()
    target.end(handle)
    assert target.progress({**handle, "host": "elsewhere"}).state == "unknown"
