"""What only S3 can show: servers that are away, that refuse, and that honour conditions in odd ways or not at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader
from dialects import CutsBodies, Dialect, LosesReplies, Proxy
from servers import KEY, SECRET, S3Server, free_port

from cluster.store import ArtifactStore, open_store
from cluster.store import s3 as store_s3
from cluster.store.base import scrub
from cluster.store.s3 import S3Store
from tlgan.errors import BackendError, NotFound

Open = Callable[[Dialect], tuple[S3Store, Proxy]]


def test_a_lost_reply_is_no_lost_race(behind: Open, tmp_path: Path) -> None:
    dialect = LosesReplies()
    store, proxy = behind(dialect)
    artifacts = ArtifactStore(store, tmp_path / "cache")
    (tmp_path / "file").write_bytes(b"1")
    first = artifacts.push("one", tmp_path / "file", kind="files")
    (tmp_path / "file").write_bytes(b"2")
    dialect.lost.clear()
    second = artifacts.push("one", tmp_path / "file", kind="files")
    assert len(dialect.lost) == 2  # a manifest and the alias
    alias = artifacts.aliases("one")["latest"]
    assert alias.digest == second.digest
    assert alias.prev is not None
    assert alias.prev.digest == first.digest
    assert len(artifacts.versions("one")) == 2
    assert proxy.requests


def test_a_broken_body_is_asked_for_again(behind: Open, tmp_path: Path) -> None:
    store, _ = behind(CutsBodies())
    store.put("a/b", b"0123456789" * 100_000)
    assert store.get("a/b") == b"0123456789" * 100_000
    store.put("a/c", b"0123456789" * 100_000)
    store.download("a/c", tmp_path / "c", size=1_000_000)
    assert (tmp_path / "c").stat().st_size == 1_000_000


def test_a_warm_pull_needs_three_requests(behind: Open, tmp_path: Path) -> None:
    store, proxy = behind(Dialect())
    artifacts = ArtifactStore(store, tmp_path / "cache")
    (tmp_path / "model").mkdir()
    for number in range(5):
        (tmp_path / "model" / f"{number}.bin").write_bytes(b"%d\n" % number * 1000)
    artifacts.push("one", tmp_path / "model", kind="files")
    artifacts.pull("one:latest")
    proxy.requests.clear()
    ArtifactStore(store, tmp_path / "cache").pull("one:latest")
    assert len(proxy.requests) == 3, proxy.requests


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    S3Server("none", endpoint).use(monkeypatch)
    start = time.monotonic()
    with pytest.raises(BackendError, match="can't be reached") as error:
        ArtifactStore("s3://bucket/models").resolve("digits32:latest")
    assert time.monotonic() - start < 15
    assert endpoint in error.value.message
    assert "TLGAN_S3_ENDPOINT" in str(error.value.hint)
    assert SECRET not in str(error.value)


def test_a_server_that_swallows_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_s3.CONNECT_TIMEOUT * store_s3.ATTEMPTS < 10
    monkeypatch.setattr(store_s3, "CONNECT_TIMEOUT", 0.4)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]  # the queue is full, so further packets get no answer
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        S3Server("full", f"http://127.0.0.1:{full.getsockname()[1]}").use(monkeypatch)
        start = time.monotonic()
        with pytest.raises(BackendError, match="can't be reached"):
            open_store("s3://bucket/models").get("a")
        assert time.monotonic() - start < 6
        for filler in fillers:
            filler.close()


def test_a_wrong_secret(rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rclone_server.use(monkeypatch)
    url = f"s3://{rclone_server.new_bucket()}/models"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    store = open_store(url)
    for action in (
        lambda: store.put("a", b""),
        lambda: store.get("a"),
        lambda: list(store.list()),
        lambda: store.head("a"),
    ):
        with pytest.raises(BackendError, match="refuses the credentials") as error:
            action()
        assert "not-the-secret" not in str(error.value)


def test_no_credentials(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moto_server.use(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BackendError, match="no credentials found") as error:
        open_store("s3://bucket/models").get("a")
    assert "AWS_ACCESS_KEY_ID" in str(error.value.hint)


def test_no_bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_server.use(monkeypatch)
    with pytest.raises(BackendError, match="the bucket does not exist"):
        ArtifactStore("s3://there-is-none/models").names()


def test_addresses_and_settings(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = moto_server.new_bucket()
    moto_server.use(monkeypatch)
    monkeypatch.delenv("TLGAN_S3_ENDPOINT")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    store = open_store(f"s3://{bucket}/")
    assert isinstance(store, S3Store)
    assert store.url == f"s3://{bucket}"
    assert store.client.meta.region_name == "eu-central-1"
    store.put("a/b", b"1")
    found = moto_server.client().get_object(Bucket=bucket, Key="a/b")
    assert found["Body"].read() == b"1"
    with pytest.raises(NotFound, match=f"a/c does not exist in s3://{bucket}"):
        store.get("a/c")


def test_scrub_cuts_user_info_and_signatures() -> None:
    dirty = (
        f"GET https://{KEY}:{SECRET}@host:9000/b/k?X-Amz-Signature=abc&X-Amz-Credential=d failed; s3://b/a@b is fine"
    )
    assert scrub(dirty) == "GET https://host:9000/b/k failed; s3://b/a@b is fine"
    assert scrub("http://127.0.0.1:9000/a@b") == "http://127.0.0.1:9000/a@b"


def test_a_further_store_does_not_read_the_service_models_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    S3Store("bucket", "models", "http://127.0.0.1:9")
    read: list[str] = []
    load_file = JSONFileLoader.load_file

    def counting(self: JSONFileLoader, file_path: str) -> object:
        found = load_file(self, file_path)
        read.extend([file_path] if found is not None else [])
        return found

    monkeypatch.setattr(JSONFileLoader, "load_file", counting)
    S3Store("bucket", "models", "http://127.0.0.1:9")
    assert read == []
