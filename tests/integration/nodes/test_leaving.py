"""Nodes that come and go on notice: a node that is drained, and a range of workers that follows the room there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.minicluster import RAY, MiniCluster
from cluster.store import ArtifactStore
from jobs.chaos.blows import Blow
from jobs.chaos.harness import Course, Subject, run

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(600)]
IMAGES = 60_000
FIND = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print([node["NodeID"] for node in ray.nodes() if sys.argv[2] in node["Resources"]][0])
"""


def course(
    folder: Path, workers: Any, nodes: int, blows: list[Blow], strikes: dict[str, Any]
) -> tuple[Subject, Course]:
    spec: dict[str, Any] = {
        "kind": "pretrain",
        "name": "tiny",
        "data": {"source": "digits"},
        "model": {"width": 8, "latent_dim": 16},
        "train": {"kimg": IMAGES / 1000, "batch_size": 32},
        "checkpoint": {"every_kimg": 30},
        "resources": {"workers": workers},
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))
    with MiniCluster(folder, nodes=nodes, cpus=1) as cluster:
        subject = Subject(folder / "spec.yaml", ArtifactStore(f"file://{folder}/store"), cluster, folder / "cache")
        return subject, run(subject, blows, IMAGES, print, strikes)


def ray_says(subject: Subject, *command: str) -> str:
    done = subprocess.run(command, env=subject.environment(), capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def drain(subject: Subject, blow: Blow) -> str | None:
    """Tells Ray that the node of rank 0 will be taken away in five minutes."""
    assert subject.cluster is not None
    pids = subject.progress.pids
    node = subject.cluster.node_of(pids[0]) if pids else None
    if node is None:
        return None
    address = subject.cluster.address
    identity = ray_says(subject, sys.executable, "-c", FIND, address, node.name)
    why = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "300",
    ]
    ray_says(subject, *RAY, "drain-node", "--address", address, "--node-id", identity, *why)
    return node.name


def test_a_node_that_will_be_taken_away_costs_a_checkpoint_and_no_images(tmp_path: Path) -> None:
    subject, told = course(tmp_path, 2, 3, [Blow("drain", 0.2, 0.0)], {"drain": drain})
    events = subject.progress.events
    assert told.drivers == 1
    assert [event["cause"] for event in events if event["type"] == "lost"] == ["preemption"]
    (resumed,) = [event["nimg"] for event in events if event["type"] == "resumed"]
    assert told.struck[0].at_images <= resumed < 30_000, "from a checkpoint that nobody had planned"


def test_a_range_of_workers_follows_the_room(tmp_path: Path) -> None:
    def come(subject: Subject, blow: Blow) -> str:
        assert subject.cluster is not None
        return f"{subject.cluster.add_node().name} came"

    subject, told = course(tmp_path, "1..2", 1, [Blow("come", 0.1, 0.0)], {"come": come})
    begun = [event for event in subject.progress.events if event["type"] in ("started", "resumed")]
    assert told.drivers == 1
    assert [event["workers"] for event in begun] == [1, 2]
    assert [event["cause"] for event in subject.progress.events if event["type"] == "lost"] == ["resize"]
    steps = [event["nimg"] for event in subject.progress.events if event["type"] == "progress"]
    assert all(nimg % 32 == 0 for nimg in steps), "the global batch stays"
