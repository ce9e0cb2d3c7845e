"""Eight processes at once for some seconds; `tests.bench.store_faults` lets them work for minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers import S3Server

from cluster.store import ArtifactStore
from tests.faults import crowd
from tests.faults.breaking import quick_folder
from tests.faults.memory_store import MemoryStore

SECONDS = 3.0


def check(verdict: crowd.Verdict) -> None:
    assert verdict.problems == []
    assert (verdict.live_bytes_lost, verdict.acknowledged_lost, verdict.double_winners) == (0, 0, 0)
    assert verdict.versions > 0
    assert verdict.counts["pushed"] > 0
    assert verdict.counts["won"] > 0


def test_on_a_directory() -> None:
    with quick_folder() as folder:
        verdict = crowd.run(f"file://{folder}/store", SECONDS, 1, folder)
    check(verdict)
    assert verdict.counts["blobs collected"] > 0


def test_on_a_server(moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_server.use(monkeypatch)
    check(crowd.run(f"s3://{moto_server.new_bucket()}/store", SECONDS, 2, tmp_path))


def test_a_lie_is_found(tmp_path: Path) -> None:
    """Two winners of one state, and a version that was acknowledged and is not there."""
    log = tmp_path / "log"
    won = {"what": "won", "expect": "none", "prev": "none"}
    events = [{**won, "digest": "a"}, {**won, "digest": "b"}, {"what": "pushed", "ref": "kept@0123456789abcdef"}]
    log.write_text("\n".join(map(json.dumps, events)))
    verdict = crowd.judge(ArtifactStore(MemoryStore(), tmp_path / "cache"), [log])
    assert (verdict.double_winners, verdict.acknowledged_lost) == (1, 1)
    assert len(verdict.problems) == 3
