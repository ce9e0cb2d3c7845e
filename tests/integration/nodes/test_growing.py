"""A cluster that grows by Ray's own autoscaler: it is told what a run waits for. Its provider starts nodes on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.minicluster import MiniCluster
from cluster.room import GROWS
from cluster.store import ArtifactStore
from jobs.chaos.harness import Subject, run

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(600)]


class Growing(MiniCluster):
    """A head without processors; up to two nodes of one processor are started when something waits for them."""

    def __init__(self, folder: Path) -> None:
        grows = json.dumps([{"nodes": 2, "cpus": 1}])
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", GROWS: grows}
        super().__init__(folder, nodes=0, cpus=1, environment=fake)

    def _add(self, name: str, arguments: list[str]) -> object:
        config = {
            "cluster_name": "growing",
            "max_workers": 2,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": self.address,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
            },
            "head_node_type": "ray.head.default",
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 5,
            "auth": {"ssh_user": "nobody"},
            "docker": {},
            "initialization_commands": [],
            "setup_commands": [],
            "head_setup_commands": [],
            "worker_setup_commands": [],
            "head_start_ray_commands": [],
            "worker_start_ray_commands": [],
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
        }
        path = self.folder / "autoscaler.json"
        path.write_text(json.dumps(config))
        return super()._add(name, [*arguments, f"--autoscaling-config={path}"])


def run_on_one_that_grows(tmp_path: Path, workers: int | str, kimg: float) -> list[dict[str, Any]]:
    """The events of a run."""
    spec = {
        "kind": "pretrain",
        "name": "tiny",
        "data": {"source": "digits"},
        "model": {"width": 8, "latent_dim": 16},
        "train": {"kimg": kimg, "batch_size": 32},
        "resources": {"workers": workers},
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    with Growing(tmp_path) as cluster:
        subject = Subject(
            tmp_path / "spec.yaml", ArtifactStore(f"file://{tmp_path}/store"), cluster, tmp_path / "cache"
        )
        told = run(subject, [], 2000, print, {})
    assert told.drivers == 1
    return subject.progress.events


def test_a_run_waits_for_nodes_that_are_not_there_yet(tmp_path: Path) -> None:
    events = run_on_one_that_grows(tmp_path, workers=2, kimg=2)
    (waiting,) = [event for event in events if event["type"] == "waiting"]
    assert (waiting["workers"], waiting["room"]) == (2, 0)
    assert [event["workers"] for event in events if event["type"] == "started"] == [2]
    assert not [event for event in events if event["type"] == "lost"]


def test_a_range_of_workers_makes_the_cluster_grow_to_the_most(tmp_path: Path) -> None:
    """It begins with the one node that comes first, and goes on with two."""
    events = run_on_one_that_grows(tmp_path, workers="1..2", kimg=150)
    (waiting,) = [event for event in events if event["type"] == "waiting"]
    assert waiting["workers"] == 1
    begun = [(event["type"], event["workers"]) for event in events if event["type"] in ("started", "resumed")]
    assert begun == [("started", 1), ("resumed", 2)]
    assert [event["cause"] for event in events if event["type"] == "lost"] == ["resize"]
