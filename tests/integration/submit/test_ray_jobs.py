"""Target ray against the Jobs server of a real Ray head with token authentication; and its runs when the cluster is gone."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dialects import Proxy
from roles import Enforces
from servers import S3Server, free_port, policy_of

from cluster.runs import Runs
from cluster.store import open_store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
long = pytest.mark.skipif("TLGAN_LONG_TESTS" not in os.environ, reason="more drivers; set TLGAN_LONG_TESTS to run it")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lab(ray_head: Any, spec: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tlgan.yaml` names the head as `lab`, and a cluster where nobody listens as `nowhere`."""
    head = ray_head()
    nowhere = {"kind": "ray", "address": f"http://127.0.0.1:{free_port()}"}
    Path("tlgan.yaml").write_text(yaml.safe_dump({"targets": {"lab": head.settings(), "nowhere": nowhere}}))
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    return head


def told(err: str) -> str:
    message: str = json.loads(err.splitlines()[-1])["error"]["message"]
    return message


@pytest.mark.parametrize("verb", [["submit", "tiny.yaml", "--on"], ["target", "check"]])
def test_wrong_addresses_and_tokens_are_told_at_once(lab: Any, run: Run, verb: list[str], monkeypatch: Any) -> None:
    begun = time.monotonic()
    code, _, err = run(*verb, "nowhere", "--json")
    assert (code, "nobody listens at http://127.0.0.1" in told(err)) == (5, True)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token")
    code, _, err = run(*verb, "lab", "--json")
    assert (code, "refuses the token in RAY_AUTH_TOKEN" in told(err)) == (5, True)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    code, _, err = run(*verb, "lab", "--json")
    assert (code, "refuses a request without a token (RAY_AUTH_TOKEN)" in told(err)) == (5, True)
    assert time.monotonic() - begun < 15
    code, _, err = run(*verb, "lap", "--json")
    assert (code, told(err)) == (3, 'there is no target "lap"')
    assert run("ls", "--json")[1].strip() == "[]"


def test_what_the_cluster_can_never_hold(lab: Any, run: Run) -> None:
    begun = time.monotonic()
    code, _, err = run("submit", "tiny.yaml", "--on", "lab", "--json", "-s", "resources.workers=16")
    assert time.monotonic() - begun < 5
    assert (code, told(err)) == (6, "the run asks for 16 CPUs (16 workers), the cluster lab has 2")


def test_a_cluster_that_grows_is_judged_by_what_it_can_become(lab: Any, run: Run) -> None:
    targets = yaml.safe_load(Path("tlgan.yaml").read_text())
    targets["targets"]["lab"]["grows"] = [{"nodes": 3, "cpus": 8}, {"nodes": 1, "cpus": 4, "gpus": 1}]
    Path("tlgan.yaml").write_text(yaml.safe_dump(targets))
    code, out, err = run("target", "check", "lab")
    assert (code, "at most 5 with 30 CPUs and 1 GPUs" in out) == (0, True), out + err
    code, _, err = run("submit", "tiny.yaml", "--on", "lab", "--json", "-s", "resources.workers=32")
    assert (code, told(err)) == (6, "the run asks for 32 CPUs (32 workers), the cluster lab has 30")
    plan = run("plan", "tiny.yaml", "--on", "lab", "-s", "resources.workers=16")[1]
    assert "TLGAN_CLUSTER_GROWS" in plan, "the driver judges likewise"


@long
@pytest.mark.slow
def test_a_probe_and_a_run_that_is_ended_while_its_driver_starts(
    lab: Any, run: Run, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.use(monkeypatch)
    bucket = moto_server.new_bucket()
    monkeypatch.setenv("TLGAN_STORE", f"s3://{bucket}/models")
    code, out, err = run("plan", "tiny.yaml", "--on", "lab", "--probe", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["estimate"][0]["memory_bytes"] > 100 << 20
    assert plan["request"]["entrypoint"].startswith(f"{sys.executable} -P -m jobs.launch s3://{bucket}/models tiny-")
    _code, out, _ = run("submit", "tiny.yaml", "--on", "lab", "-s", "train.kimg=400", "-s", "name=second")
    run_id = out.strip()
    assert run("stop", run_id, "--now")[0] == 0
    assert run("wait", run_id)[0] == 103
    job = (Runs(open_store()).get(run_id).submission or {})["handle"]["job"]
    deadline = time.monotonic() + 60
    while _jobs(lab, job)["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_on_the_cluster_and_when_the_cluster_is_gone(
    lab: Any, run: Run, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, the store a bucket whose keys the nodes have; then the head is ended and the keys may only read."""
    moto_server.use(monkeypatch)
    bucket = moto_server.new_bucket()
    monkeypatch.setenv("TLGAN_STORE", f"s3://{bucket}/models")
    code, out, _ = run("target", "check", "lab", "--json")
    assert json.loads(out)["nodes"] == "1 with 2 CPUs and 0 GPUs"
    begun = time.monotonic()
    code, out, err = run("submit", "tiny.yaml", "--on", "lab", "--json", "-s", "resources.workers=2")
    assert code == 0, err
    assert time.monotonic() - begun < 10
    answer = json.loads(out)
    run_id, submission = answer["id"], Runs(open_store()).get(answer["id"]).submission or {}
    sent = _jobs(lab, submission["handle"]["job"])
    assert (sent["type"], sent["metadata"]["tlgan_run"]) == ("SUBMISSION", run_id)
    assert not [
        word for word in (lab.token, moto_server.environment["AWS_SECRET_ACCESS_KEY"]) if word in json.dumps(sent)
    ]
    code, out, err = run("wait", run_id, "--json")
    assert code == 0, f"{err}\n{run('logs', run_id)[1]}"
    ref = json.loads(out)["outputs"][0]["ref"]
    lab.end()

    dialect = Enforces()
    dialect.statements = policy_of("reader", bucket, "models")
    proxy = Proxy(moto_server, dialect)
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
    try:
        _reads_everything(run, run_id, ref)
    finally:
        proxy.http.shutdown()
        proxy.http.server_close()


def _jobs(head: Any, job: str) -> Any:
    asked = urllib.request.Request(f"{head.address}/api/jobs/{job}", headers={"Authorization": f"Bearer {head.token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=30) as answer:
        return json.load(answer)


def _reads_everything(run: Run, run_id: str, ref: str) -> None:
    shown = json.loads(run("show", run_id, "--json")[1])
    assert (shown["state"], shown["standing"]) == ("succeeded", "succeeded")
    assert run_id in run("ls")[1]
    assert run("wait", run_id)[0] == 0
    lines = [json.loads(line) for line in run("logs", run_id, "--json")[1].splitlines()]
    assert {line["source"] for line in lines} == {"driver", "rank-0", "rank-1"}
    ranks = run("logs", run_id, "--rank", "1")[1]
    assert "rank 1 of 2" in ranks
    own = r"code in \S*/(cache/code|py_modules_files)/"  # the driver's folder on its own node, Ray's copy on others
    assert re.search(own, ranks), "workers run the code that was submitted, not what is installed"
    assert "rank 0 of 2" not in ranks
    events = [json.loads(line) for line in run("events", run_id, "--json")[1].splitlines()]
    assert {"run", "started", "progress", "trained"} <= {event["type"] for event in events}
    assert run("metrics", run_id)[0] == 0
    assert run("grid", run_id, "last.png")[0] == 0
    assert run("report", run_id)[0] == 0
    assert run("pull", ref)[0] == 0
    assert run("stop", run_id)[0] == 4
    assert run("submit", "tiny.yaml", "-s", "name=another")[0] == 5
