"""The random workload on the S3 backend, with a server that goes wrong between it and moto."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import S3Server

from tests.faults import faulty_server


def test_nothing_is_lost(moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_server.use(monkeypatch)
    report = faulty_server.run(1, 300, moto_server.endpoint, moto_server.new_bucket(), tmp_path, most_faults=30)
    assert report.problems == []
    assert sum(report.faults.values()) >= 30
    assert {"503", "503 after", "lost reply", "truncated", "flipped bit"} <= report.faults.keys()
