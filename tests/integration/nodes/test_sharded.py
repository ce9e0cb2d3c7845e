"""Four workers on two nodes train on a dataset that is sharded over nodes: a node fetches the shards its workers show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.minicluster import MiniCluster
from cluster.store import ArtifactStore
from jobs.chaos.harness import Subject, run
from tlgan.data.dataset import prepare
from tlgan.data.pack import write_parquet
from tlgan.recipe import DataSpec

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(600)]
SHARDS = 9  # of 200 digits, the last of 197
SPEC = {
    "kind": "pretrain",
    "name": "sharded",
    "data": {"artifact": "digits:latest", "sharded": True},
    "model": {"width": 8, "latent_dim": 16, "conditional": True},
    "train": {"kimg": 2, "batch_size": 32},
    "resources": {"workers": 4},
    "metrics": ["kid"],
    "evaluation": {"data": {"source": "digits", "limit": 200}, "samples": 64, "every_kimg": 2},
}


def test_a_node_fetches_its_shards_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store", cache_dir=tmp_path / "own")
    digits = prepare(DataSpec(source="digits"), resolution=32, shuffled=True)
    monkeypatch.setattr("tlgan.data.pack.ROWS", 200)
    facts = write_parquet(digits, tmp_path / "packed", shard_bytes=1) | {"shuffled": True}
    manifest = store.push("digits", tmp_path / "packed", kind="dataset", facts=facts)
    shards = [file.sha256 for file in manifest.files]
    assert len(shards) == SHARDS
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    with MiniCluster(tmp_path, nodes=2, cpus=2) as cluster:
        run(Subject(tmp_path / "spec.yaml", store, cluster, tmp_path / "cache"), [], 0, print)
    held = {
        node: [k for k, digest in enumerate(shards) if (folder / "store/blobs" / digest[:2] / digest).exists()]
        for node, folder in [
            ("driver", tmp_path / "cache"),
            *((f"node{n}", tmp_path / f"cache-node{n}") for n in (1, 2)),
        ]
    }
    assert held["driver"] == []
    assert sorted([held["node1"], held["node2"]]) == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]], held
    trained = store.resolve("sharded:latest")
    assert trained.facts["data"]["digest"] == digits.digest
    assert trained.parents[0].digest == manifest.digest
    assert [metric["name"] for metric in trained.metrics] == ["kid"]
