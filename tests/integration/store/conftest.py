"""Each kind of backend, empty, for the suite that must hold on all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from servers import S3Server, moto_server, rclone_server  # noqa: F401

from cluster.store import ArtifactStore, Store, open_store

BACKENDS = ["directory", "moto", "rclone"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(backend: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if backend == "directory":
        return open_store(f"file://{tmp_path}/store")
    server: S3Server = request.getfixturevalue(f"{backend}_server")
    server.use(monkeypatch)
    return open_store(f"s3://{server.new_bucket()}/team/models")


@pytest.fixture
def artifacts(store: Store, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(store, tmp_path / "cache")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make("dir", {"a/b.txt": b"..."})`: a directory with files."""

    def build(name: str, files: dict[str, bytes]) -> Path:
        for path, data in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return tmp_path / name

    return build
