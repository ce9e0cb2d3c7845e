"""Four workers on two nodes: the parent's weights reach each node once, and each worker reads its own rows of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server

from cluster.minicluster import MiniCluster
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.chaos.harness import Subject, run
from jobs.execute import execute
from jobs.session import Session
from tests.bench.outage import outage

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(600)]
NODES = 2
PARENT: dict[str, Any] = {
    "kind": "pretrain",
    "name": "parent",
    "data": {"source": "digits"},
    "model": {"width": 8, "latent_dim": 16},
    "train": {"kimg": 0.2, "batch_size": 32},
}
CHILD: dict[str, Any] = {
    "kind": "finetune",
    "name": "child",
    "init_from": {"artifact": "parent:latest"},
    "data": {"source": "digits"},
    "train": {"kimg": 2, "batch_size": 32},
    "resources": {"workers": 4},
}


def test_weights_reach_a_node_once(moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_server.use(monkeypatch)
    store = ArtifactStore(open_store(f"s3://{moto_server.new_bucket()}/store"))
    with Session(store) as session:
        execute(parse_job(PARENT), session)
    blobs = {file.sha256 for file in store.resolve("parent:latest").files if file.path.endswith(".safetensors")}
    (tmp_path / "spec.yaml").write_text(json.dumps(CHILD))
    with outage(moto_server.endpoint) as proxy:
        monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
        with MiniCluster(tmp_path, nodes=NODES, cpus=2) as cluster:
            subject = Subject(tmp_path / "spec.yaml", store, cluster, tmp_path / "cache")
            run(subject, [], 0, print)
        got = {name: sum(n for path, n in proxy.read.items() if path.endswith(name)) for name in blobs}
    assert set(got.values()) == {NODES}, got
    record = session.runs.get("child")
    started = next(event for event in session.runs.events(record.id) if event["type"] == "started")
    assert started["workers"] == len(set(started["pids"])) == 4
