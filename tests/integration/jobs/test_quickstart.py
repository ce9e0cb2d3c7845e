"""The main job as a newcomer runs it, over S3, in a process and a Ray of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import S3Server, moto_server, rclone_server  # noqa: F401

from cluster.store import ArtifactStore, open_store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
QUICK = [
    "features.train.kimg=4",
    "base.train.kimg=4",
    "base.model.width=8",
    "base.checkpoint.every_kimg=2",
    "base.data.limit=2000",
    "base.evaluation.samples=64",
    "tune.base.train.kimg=2",
    "tune.base.evaluation.samples=64",
    "tune.search.trials=2",
    "tune.early_stop.grace_kimg=1",
    "eval.samples=64",
    "eval.gate.kid=< 1000",
]


@pytest.mark.parametrize(
    "server", ["rclone_server", *(pytest.param(one, marks=pytest.mark.minutes) for one in ("moto_server", "directory"))]
)
def test_quickstart_as_a_person_runs_it(
    server: str, workdir: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The main job, short, in a process and a Ray of its own, from nothing to a report; the second time nothing is run again."""
    store = "store"
    if server != "directory":
        s3: S3Server = request.getfixturevalue(server)
        s3.use(monkeypatch)
        store = f"s3://{s3.new_bucket()}/tlgan"
    program = [sys.executable, "-m", "jobs.cli", *quickstart(store)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=350, check=False)
    assert done.returncode == 0, done.stderr
    check_made(json.loads(done.stdout), store)
    assert not [line for line in done.stderr.splitlines() if "raylet" in line or "pid=" in line], "Ray keeps quiet"

    begun = time.monotonic()
    again = subprocess.run(program, capture_output=True, text=True, timeout=350, check=False)
    assert again.returncode == 0, again.stderr
    told = [json.loads(line)["type"] for line in again.stderr.splitlines() if line.startswith("{")]
    assert told.count("cached") == 5, "every stage is unchanged"
    assert time.monotonic() - begun < 60


def quickstart(store: str) -> list[str]:
    return ["quickstart", "out", "--store", store, "--json", *(a for o in QUICK for a in ("-s", o))]


def check_made(made: dict[str, str], store: str) -> None:
    """Report and images are there, and the lineage reaches back to the pretraining and both datasets."""
    for name in ("report", "grid", "interpolation"):
        assert Path(made[name]).stat().st_size > 500
    assert len(list(Path(made["images"]).glob("*.png"))) == 64
    assert "<svg" in Path(made["report"]).read_text()
    tree = ArtifactStore(open_store(store)).lineage("digits32:best")
    roles = {(p["role"], p["kind"]) for p in tree["parents"] if not p.get("external")}
    assert ("init_from", "gan") in roles
    assert ("extractor", "classifier") in roles
    base = next(p for p in tree["parents"] if p["role"] == "init_from")
    data = [p["asked"] for node in (tree, base) for p in node["parents"] if p["role"] == "data"]
    assert any("digits" in text for text in data)
    assert any("glyphs" in text for text in data)
