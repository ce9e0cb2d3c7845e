"""Presigned URLs: they work without a key for as long as they say, and not longer."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import KEY, SECRET, S3Server

from cluster.store import ArtifactStore, open_store
from cluster.store.layout import blob_key
from cluster.store.sharing import duration, presign
from tlgan.errors import IntegrityError, NotFound, SpecError

Make = Callable[..., Path]
FILES = {"a.bin": b"a" * 1000, "b/c d,(1).bin": b"c" * 2000}


@pytest.fixture(params=["moto", "rclone", "rgw"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ArtifactStore:
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    server.use(monkeypatch)
    return ArtifactStore(open_store(f"s3://{server.new_bucket()}/team"), tmp_path / "cache")


def fetch(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return bytes(answer.read())


def test_whoever_has_the_url_reads_the_file(bucket: ArtifactStore, make: Make) -> None:
    pushed = bucket.push("one", make("model", FILES), kind="files")
    shared = presign(bucket.store, pushed, [], 60)
    assert {one.entry.path: fetch(one.urls[0]) for one in shared.files} == FILES
    assert (shared.access_key, shared.session) == (KEY, False)
    assert SECRET not in str(shared) + "".join(url for one in shared.files for url in one.urls)
    assert "X-Amz" not in str(shared)
    only = presign(bucket.store, pushed, ["a.bin", "a.bin"], 60)
    assert [one.entry.path for one in only.files] == ["a.bin"]


def test_it_ends(rclone_server: S3Server, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rclone_server.use(monkeypatch)
    bucket = ArtifactStore(open_store(f"s3://{rclone_server.new_bucket()}"))
    url = presign(bucket.store, bucket.push("one", make("m", FILES), kind="files"), ["a.bin"], 1).files[0].urls[0]
    with pytest.raises(urllib.error.HTTPError) as tampered:
        fetch(url.replace("a", "b"))
    tampered.value.close()
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError) as expired:
        fetch(url)
    expired.value.close()


def test_a_temporary_key_is_noticed(moto_server: S3Server, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_server.use(monkeypatch)
    bucket = moto_server.new_bucket()
    pushed = ArtifactStore(open_store(f"s3://{bucket}")).push("one", make("m", FILES), kind="files")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t0ken")
    assert presign(open_store(f"s3://{bucket}"), pushed, [], 60).session


def test_what_can_not_be_shared(bucket: ArtifactStore, make: Make, tmp_path: Path) -> None:
    pushed = bucket.push("one", make("model", FILES), kind="files")
    with pytest.raises(NotFound, match=r"has no file 'a\.bim'") as caught:
        presign(bucket.store, pushed, ["a.bim"], 60)
    assert caught.value.hint == 'did you mean "a.bin"?'
    bucket.store.delete(blob_key(pushed.files[0]))
    with pytest.raises(IntegrityError, match=r"a\.bin: blobs/.* is missing"):
        presign(bucket.store, pushed, [], 60)
    with pytest.raises(SpecError, match="is a directory"):
        presign(open_store(str(tmp_path)), pushed, [], 60)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15min", 900), ("1h", 3600), ("7d", 604_800), ("168 h", 604_800)]
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "0s", "-1h", "1.5h", "8d", "169h", "1w", "1m", "h", "99999999999s"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(SpecError):
        duration(text)
