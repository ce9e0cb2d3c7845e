"""Each kind of backend, empty, for the suite that must hold on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dialects import Dialect, Proxy
from servers import (  # noqa: F401
    S3Server,
    _rgw,
    asked_once,
    moto_server,
    moto_tls_server,
    rclone_server,
    rclone_tls_server,
    rgw_server,
    rgw_tls_server,
)

from cluster.store import ArtifactStore, Store, open_store
from cluster.store.s3 import S3Store

ALWAYS = {  # of the servers that `make test` tries a file on; on the others it waits for `make test-all`
    "test_store_backends.py": {"directory", "moto", "rclone", "rgw"},
    "test_store_artifacts.py": {"directory", "rclone"},  # the seam is the same for all: nothing here hangs on a server
    "test_store_copy.py": {"directory", "rclone"},
    "test_store_verify.py": {"directory", "rclone"},
}
ELSE_ALWAYS = {"directory", "moto", "rclone"}  # what may hang on compare-and-swap


@pytest.hookimpl(tryfirst=True)  # before those that wait are skipped
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        backend = (
            item.callspec.params.get("backend")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        if backend is not None and backend not in ALWAYS.get(item.path.name, ELSE_ALWAYS):
            item.add_marker(pytest.mark.minutes)


@pytest.fixture(params=["directory", "moto", "rclone", "rgw"])
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


@pytest.fixture
def behind(
    moto_server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Dialect], tuple[S3Store, Proxy]]]:
    """`behind(dialect)`: an empty store, and the proxy before moto that speaks the dialect."""
    proxies: list[Proxy] = []

    def build(dialect: Dialect) -> tuple[S3Store, Proxy]:
        moto_server.use(monkeypatch)
        proxies.append(Proxy(moto_server, dialect))
        return S3Store(moto_server.new_bucket(), "models", proxies[-1].endpoint), proxies[-1]

    yield build
    for proxy in proxies:
        proxy.http.shutdown()
        proxy.http.server_close()
