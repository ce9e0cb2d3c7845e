"""Keys that may not delete or not write: what a reader does, a reader can do."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import S3Server

from cluster.store import ArtifactStore, open_store
from tlgan.errors import BackendError


@pytest.fixture
def url(rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A store with `model` in it, and the bucket's rights for `worker` and `reader`."""
    rgw_server.use(monkeypatch)
    url = f"s3://{rgw_server.new_bucket(shared=True)}/models"
    (tmp_path / "weights.bin").write_bytes(b"weights")
    ArtifactStore(url).push("model", tmp_path / "weights.bin", kind="files")
    return url


def test_a_reader_reads(url: str, rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rgw_server.as_user("reader").use(monkeypatch)
    artifacts = ArtifactStore(url, tmp_path / "cache")
    assert (artifacts.pull("model:latest") / "weights.bin").read_bytes() == b"weights"
    assert artifacts.names() == ["model"]
    assert artifacts.show("model:latest")["aliases"] == ["latest"]
    assert artifacts.lineage("model:latest")
    assert artifacts.verify("model:latest", full=True).ok
    with pytest.raises(BackendError, match="refuses the credentials"):
        artifacts.push("other", tmp_path / "weights.bin", kind="files")
    assert not any(info.key.startswith(("probe/", "leases/")) for info in open_store(url).list())


def test_a_worker_publishes(url: str, rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may not delete, so that a leaked key of a training machine loses nothing."""
    rgw_server.as_user("worker").use(monkeypatch)
    store = open_store(url)
    with pytest.raises(BackendError, match="refuses the credentials for DeleteObject"):
        store.delete("FORMAT.json")
    (tmp_path / "weights.bin").write_bytes(b"better")
    pushed = ArtifactStore(store).push("model", tmp_path / "weights.bin", kind="files")
    assert ArtifactStore(store).resolve("model:latest") == pushed
    assert store.capabilities.compare_and_swap
