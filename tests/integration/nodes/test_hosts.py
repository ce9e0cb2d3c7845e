"""Several hosts, each with an address of its own: one of them dies, or its cable is pulled and put back."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from namespaces import NamespaceCluster, skip_without

from cluster.runs import Runs
from cluster.store import ArtifactStore
from jobs.chaos.blows import NODE, Blow
from jobs.chaos.comparing import compare
from jobs.chaos.harness import Course, Subject, run

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]
SPEC: dict[str, Any] = {
    "kind": "pretrain",
    "name": "tiny",
    "data": {"source": "digits"},
    "model": {"width": 8, "latent_dim": 16},
    "train": {"kimg": 60, "batch_size": 32},
    "checkpoint": {"every_kimg": 2},
    "resources": {"workers": 2},
    "output": {"artifact": "tiny-gan"},
}
IMAGES = 60_000


def course(tmp_path: Path, name: str, blows: list[Blow], cable: bool = False) -> tuple[Subject, Course]:
    """Three hosts with room for one worker each: one is spare."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "spec.yaml").write_text(json.dumps(SPEC))
    with NamespaceCluster(folder, nodes=3, cpus=1) as cluster:
        subject = Subject(folder / "spec.yaml", ArtifactStore(f"file://{folder}/store"), cluster, folder / "cache")

        def pull(struck: Subject, blow: Blow) -> str | None:
            pids = struck.progress.pids
            node = cluster.node_of(pids[-1]) if pids else None
            if node is None:
                return None
            cluster.cut(node.name)
            threading.Timer(60, cluster.heal, [node.name]).start()
            return f"the cable of {node.name}"

        return subject, run(subject, blows, IMAGES, print, {"cable": pull})


def workers(subject: Subject) -> set[str]:
    """Hosts on which ranks said hello, by their own first lines."""
    store = subject.store.store
    return {info.key.split("/")[3] for info in store.list(f"runs/{Runs(store).get('tiny').id}/logs/")}


def test_a_host_dies_and_another_loses_its_network(tmp_path: Path) -> None:
    skip_without()
    whole, _ = course(tmp_path, "whole", [])
    struck, told = course(tmp_path, "struck", [Blow(NODE, 0.2, 0.9), Blow("cable", 0.5, 0.0)])
    assert [one.kind for one in told.struck] == [NODE, "cable"]
    assert told.drivers == 1, "the driver took care of both by itself"
    lost = [event for event in struck.progress.events if event["type"] == "lost"]
    assert len(lost) == 2
    assert {"rank-0", "rank-1"} <= workers(struck)
    stores = [ArtifactStore(subject.store.store, cache_dir=tmp_path / "read") for subject in (whole, struck)]
    (verdict,) = compare(*stores, ["tiny-gan"])
    assert verdict.same, verdict.unlike
