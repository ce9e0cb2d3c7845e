"""The S3 engine: transfers that go on after a kill, damage on the way, servers that are busy or bend the rules."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError
from servers import S3Server
from wire import Raw, Wire, busy, flipped

from cluster.store import ArtifactStore, open_store, s3_download, s3_progress, s3_upload
from cluster.store.s3 import S3Store
from cluster.store.s3_journal import UploadJournal
from tlgan.errors import BackendError, IntegrityError, SpecError

PART = 5 << 20
PARTS = 8
KILLED_AT = 5

CHILD = """
import os, signal, sys
from pathlib import Path
from cluster.store import open_store, s3_download, s3_progress, s3_upload

what, url, path, digest = sys.argv[1:]
s3_upload.PART = s3_progress.RANGE = 5 << 20
s3_download.RANGED_FROM, s3_progress.SAVED_EVERY = 5 << 20, 0
store, seen = open_store(url), []

def count(**_):
    seen.append(1)
    if len(seen) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

if what == "put":
    store.client.meta.events.register("before-send.s3.UploadPart", count)
    store.put("a/big", Path(path), sha256=digest)
else:
    reached = s3_progress.Progress.reached

    def watch(self, number, at):
        reached(self, number, at)
        if sum(self.at(i) - (5 << 20) * i for i in range(8)) >= 16 << 20:
            os.kill(os.getpid(), signal.SIGKILL)

    s3_progress.Progress.reached = watch
    store.download("a/big", Path(path), sha256=digest, size=40 << 20)
"""


@pytest.fixture(params=["rclone", pytest.param("moto", marks=pytest.mark.minutes)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    found: S3Server = request.getfixturevalue(f"{request.param}_server")
    found.use(monkeypatch)
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(s3_upload, "PART", PART)
    monkeypatch.setattr(s3_progress, "RANGE", PART)
    monkeypatch.setattr(s3_download, "RANGED_FROM", PART)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return found


@pytest.fixture
def url(server: S3Server) -> str:
    return f"s3://{server.new_bucket()}/models"


@pytest.fixture
def store(url: str) -> S3Store:
    found = open_store(url)
    assert isinstance(found, S3Store)
    return found


@pytest.fixture
def big(tmp_path: Path) -> tuple[Path, str]:
    data = random.Random(3).randbytes(PART * PARTS)
    (tmp_path / "big").write_bytes(data)
    return tmp_path / "big", hashlib.sha256(data).hexdigest()


def kill_midway(what: str, url: str, path: Path, digest: str) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, what, url, str(path), digest], check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL


def unfinished(server: S3Server, store: S3Store) -> int:
    try:
        return len(server.client().list_multipart_uploads(Bucket=store.bucket).get("Uploads", []))
    except ClientError:  # rclone, when there is none
        return 0


def test_a_killed_push_goes_on_from_its_parts(
    server: S3Server, store: S3Store, url: str, big: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = big
    kill_midway("put", url, path, digest)
    assert store.head("a/big") is None
    wire = Wire(store)
    store.put("a/big", path, sha256=digest)
    sent = KILLED_AT - 1 + wire.seen["UploadPart"]  # the fifth was not sent any more
    assert PARTS <= sent <= PARTS + KILLED_AT - 1
    assert wire.seen["UploadPart"] < PARTS
    assert wire.seen["CreateMultipartUpload"] == 0
    store.download("a/big", tmp_path / "back", sha256=digest)
    assert not list((tmp_path / "cache" / "uploads").iterdir())
    assert unfinished(server, store) == 0


def test_a_forgotten_upload_starts_anew(
    server: S3Server, store: S3Store, url: str, big: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = big
    kill_midway("put", url, path, digest)
    client = server.client()
    for upload in client.list_multipart_uploads(Bucket=store.bucket)["Uploads"]:
        client.abort_multipart_upload(Bucket=store.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    wire = Wire(store)
    store.put("a/big", path, sha256=digest)
    assert (wire.seen["CreateMultipartUpload"], wire.seen["UploadPart"]) == (1, PARTS)
    store.download("a/big", tmp_path / "back", sha256=digest)


def test_a_push_that_failed_goes_on(store: S3Store, big: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = big
    wire = Wire(store)
    wire.change = lambda operation, request: busy(request) if "partNumber=7" in request.url else None
    with pytest.raises(BackendError, match="503"):
        store.put("a/big", path, sha256=digest)
    assert store._gate.limit < store._gate.most
    wire.change = lambda operation, request: None
    wire.seen.clear()
    store.put("a/big", path, sha256=digest)
    assert 1 <= wire.seen["UploadPart"] <= 2
    store.download("a/big", tmp_path / "back", sha256=digest)


def test_another_content_is_not_completed(
    server: S3Server, store: S3Store, big: tuple[Path, str], tmp_path: Path
) -> None:
    path, _ = big
    with pytest.raises(IntegrityError):
        store.put("a/big", path, sha256="0" * 64)
    assert store.head("a/big") is None
    assert unfinished(server, store) == 0
    assert not list((tmp_path / "cache" / "uploads").iterdir())


def test_a_file_that_changes_after_its_hashing(store: S3Store, big: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "changing"
    path.write_bytes(big[0].read_bytes())
    time = path.stat().st_mtime_ns
    digest = store.hash_file(path)
    assert digest == big[1]
    with path.open("r+b") as file:
        file.seek(PART + 5)
        file.write(b"another byte or two")
    os.utime(path, ns=(time, time))
    with pytest.raises(IntegrityError, match="changed"):
        store.put("a/big", path, sha256=digest)
    assert store.head("a/big") is None


def test_an_upload_whose_parts_were_confirmed_is_not_looked_at_again(store: S3Store, big: tuple[Path, str]) -> None:
    wire = Wire(store)
    store.put("a/small", b"teaches what ETags are here")
    store.put("a/big", big[0], sha256=store.hash_file(big[0]))
    assert wire.seen["CompleteMultipartUpload"] == 1
    assert wire.seen["HeadObject"] == 0


def test_who_knows_crcs_is_given_them(server: S3Server, store: S3Store, url: str, big: tuple[Path, str]) -> None:
    """moto says that it does, and keeps them; rclone overhears the wish. An upload that is taken up again goes on as it began."""
    path, digest = big
    kill_midway("put", url, path, digest)
    sent: set[bool] = set()
    wire = Wire(store)
    wire.change = lambda operation, request: (
        sent.add("x-amz-checksum-crc32" in request.headers) if operation == "UploadPart" else None
    )
    store.put("a/big", path, sha256=store.hash_file(path))
    assert wire.seen["CreateMultipartUpload"] == 0
    assert sent == {server.name == "moto"}
    found = store.client.head_object(Bucket=store.bucket, Key=f"{store.prefix}a/big", ChecksumMode="ENABLED")
    assert ("ChecksumCRC32" in found) == (server.name == "moto")


def test_who_refuses_the_wish_for_crcs_is_asked_without(store: S3Store, big: tuple[Path, str]) -> None:
    asked: list[bool] = []

    def refuse(operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        if operation != "CreateMultipartUpload":
            return None
        asked.append("x-amz-checksum-algorithm" in request.headers)
        return AWSResponse(request.url, 501, {}, Raw()) if asked[-1] else None

    Wire(store).change = refuse
    store.put("a/big", big[0], sha256=big[1])
    store.put("a/again", big[0], sha256=big[1])
    assert asked[-2:] == [False, False], "once a process"
    assert all(asked[:-2]), "the client repeats what fails on the server"


def test_given_up_uploads_are_ended(
    server: S3Server, store: S3Store, url: str, big: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = big
    kill_midway("put", url, path, digest)
    (journal,) = (tmp_path / "cache" / "uploads").glob("*.json")
    os.utime(journal, (0, 0))
    other = tmp_path / "other"
    other.write_bytes(bytes(PART * 2))
    store.put("a/other", other)
    assert unfinished(server, store) == 0
    assert not journal.exists()


def test_a_cache_that_cannot_be_written(
    store: S3Store, big: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(store._multipart, "journal", UploadJournal(tmp_path / "file" / "uploads"))
    store.put("a/big", big[0], sha256=big[1])
    store.download("a/big", tmp_path / "back", sha256=big[1])


def test_damage_on_the_way_up(store: S3Store, big: tuple[Path, str], tmp_path: Path) -> None:
    """The ETag tells. rclone takes no part twice with other bytes: there the upload starts again."""
    store.put("a/first", b"1")
    hit: list[str] = []

    def once(operation: str, request: AWSPreparedRequest) -> None:
        if operation not in hit and (operation == "PutObject" or "partNumber=3" in request.url):
            hit.append(operation)
            flipped(request)

    wire = Wire(store)
    wire.change = once
    store.put("a/big", big[0], sha256=big[1])
    store.put("a/small", b"0123456789")
    assert sorted(hit) == ["PutObject", "UploadPart"]
    assert wire.seen["UploadPart"] > PARTS
    assert wire.seen["CreateMultipartUpload"] <= 2
    assert store.get("a/small") == b"0123456789"
    store.download("a/big", tmp_path / "back", sha256=big[1])


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_where_etags_say_nothing_small_objects_are_read_back(store: S3Store) -> None:
    store._quick.usable = False  # what the client does
    events = store.client.meta.events
    for operation in ("PutObject", "GetObject"):
        events.register(f"after-call.s3.{operation}", lambda parsed, **_: parsed.update(ETag='"no md5"'))
    wire = Wire(store)
    store.put("a/small", b"0123456789")
    assert wire.seen["GetObject"] == 1
    wire.change = lambda operation, request: flipped(request) if operation == "PutObject" else None
    with pytest.raises(BackendError, match="damaged on the way"):
        store.put("a/small", b"9876543210")


def test_ranges_side_by_side(store: S3Store, big: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = big
    store.put("a/big", path, sha256=digest)
    wire = Wire(store)
    store.download("a/big", tmp_path / "back", sha256=digest, size=PART * PARTS)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert len(wire.ranges) == PARTS
    for size in (PART * PARTS - 1, PART * PARTS + 1):
        with pytest.raises(IntegrityError):
            store.download("a/big", tmp_path / "wrong", sha256=digest, size=size)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["back", "big", "cache"]


def test_a_killed_download_goes_on(store: S3Store, url: str, big: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = big
    store.put("a/big", path, sha256=digest)
    (tmp_path / "into").mkdir()
    kill_midway("get", url, tmp_path / "into" / "back", digest)
    wire = Wire(store)
    store.download("a/big", tmp_path / "into" / "back", sha256=digest, size=PART * PARTS)
    asked = sum(
        int(end) - int(start) + 1 for start, end in (found.removeprefix("bytes=").split("-") for found in wire.ranges)
    )
    assert 0 < asked <= PART * PARTS - (16 << 20)
    assert (tmp_path / "into" / "back").read_bytes() == path.read_bytes()
    assert [found.name for found in (tmp_path / "into").iterdir()] == ["back"]


def test_what_a_killed_download_left_is_not_trusted(
    store: S3Store, url: str, big: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = big
    store.put("a/big", path, sha256=digest)
    (tmp_path / "into").mkdir()
    kill_midway("get", url, tmp_path / "into" / "back", digest)
    part = tmp_path / "into" / f"{digest}.part"
    with part.open("r+b") as file:
        for at in range(0, PART * PARTS, PART):
            file.seek(at)
            file.write(b"not this")
    wire = Wire(store)
    store.download("a/big", tmp_path / "into" / "back", sha256=digest, size=PART * PARTS)
    assert (tmp_path / "into" / "back").read_bytes() == path.read_bytes()
    assert wire.seen["GetObject"] == len(wire.ranges) + 1


def test_a_server_that_ignores_ranges(store: S3Store, big: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = big
    store.put("a/big", path, sha256=digest)
    wire = Wire(store)

    def ignore(operation: str, request: AWSPreparedRequest) -> None:
        if "Range" in request.headers:
            del request.headers["Range"]

    store.client.meta.events.register("before-sign.s3.GetObject", lambda request, **_: ignore("", request))
    store.download("a/big", tmp_path / "back", sha256=digest, size=PART * PARTS)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert not wire.ranges
    assert store.get_range("a/big", 3_000_000, 3_000_100) == path.read_bytes()[3_000_000:3_000_100]
    store.download("a/big", tmp_path / "again", sha256=digest, size=PART * PARTS)
    assert wire.seen["GetObject"] <= store._gate.most + 3


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_encryption(server: S3Server, url: str, big: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGAN_S3_SSE", "aws:kms")
    monkeypatch.setenv("TLGAN_S3_SSE_KMS_KEY_ID", "key-1")
    store = open_store(url)
    assert isinstance(store, S3Store)
    store.put("a/small", b"1")
    store.put("a/big", big[0], sha256=big[1])
    assert store.put_if_absent("a/new", b"1")
    for key in ("small", "big", "new"):
        found = server.client().head_object(Bucket=store.bucket, Key=f"models/a/{key}")
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "key-1")
    for kind, key in (("rot13", ""), ("AES256", "key-1"), ("", "key-1")):
        monkeypatch.setenv("TLGAN_S3_SSE", kind)
        monkeypatch.setenv("TLGAN_S3_SSE_KMS_KEY_ID", key)
        with pytest.raises(SpecError, match="TLGAN_S3_SSE"):
            open_store(url)


def test_many_small_files_are_asked_for_once(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for number in range(40):
        (tmp_path / "model" / f"{number}.bin").write_bytes(b"%d" % number * 100)
    artifacts = ArtifactStore(store, tmp_path / "cache")
    wire = Wire(store)
    artifacts.push("one", tmp_path / "model", kind="files")
    first = wire.seen["PutObject"]
    assert first >= 40
    assert wire.seen["HeadObject"] < 10
    wire.seen.clear()
    sent = artifacts.stats.uploaded
    artifacts.push("one", tmp_path / "model", kind="files")
    assert artifacts.stats.uploaded == sent
    assert wire.seen["PutObject"] < 5
    blobs = [info.key for info in store.list("blobs/")]
    store.delete(blobs[7])
    artifacts.push("one", tmp_path / "model", kind="files")
    assert [info.key for info in store.list("blobs/")] == blobs
