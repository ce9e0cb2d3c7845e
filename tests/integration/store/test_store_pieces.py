"""Large files in pieces: sent while they are hashed, shared where equal, and whole in every way that a file is."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from botocore.awsrequest import AWSPreparedRequest
from servers import S3Server
from wire import Wire

from cluster.store import ArtifactStore, Store, archive, open_store, s3_download, s3_progress, sharing, unpacking
from cluster.store.condemned import condemn
from cluster.store.copying import copy
from cluster.store.gc import Collector
from cluster.store.layout import Version, blob_key
from cluster.store.pieces import Rule
from cluster.store.repairing import Repairer
from cluster.store.retention import Policy
from cluster.store.s3 import S3Store
from cluster.store.trash import remove, restore
from cluster.store.verifying import Depth, Subject, Verifier
from tlgan.errors import BackendError, Conflict, IntegrityError
from tlgan.manifest import FileEntry, Manifest

Make = Callable[..., Path]

RULE = Rule(start=5_000, size=1_000, most=20)
BIG = random.Random(5).randbytes(3_650).hex().encode()
FILES = {"big.txt": BIG, "small/notes.txt": b"small"}


@pytest.fixture
def artifacts(store: Store, tmp_path: Path) -> ArtifactStore:
    store.pieces = RULE  # type: ignore[attr-defined]
    return ArtifactStore(store, tmp_path / "cache")


@pytest.fixture
def pushed(artifacts: ArtifactStore, make: Make) -> Manifest:
    return artifacts.push("model", make("model", FILES), kind="files")


def big_of(manifest: Manifest) -> FileEntry:
    return next(entry for entry in manifest.files if entry.path == "big.txt")


def blobs(store: Store) -> set[str]:
    return {info.key for info in store.list("blobs/")}


def later() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def test_a_large_file_is_stored_in_pieces_and_pulled_whole(
    artifacts: ArtifactStore, pushed: Manifest, tmp_path: Path
) -> None:
    entry = big_of(pushed)
    assert (pushed.format, entry.size, entry.sha256) == (2, len(BIG), hashlib.sha256(BIG).hexdigest())
    assert [piece.size for piece in entry.pieces or ()] == [1_000] * 7 + [300]
    assert blobs(artifacts.store) == {blob_key(blob) for blob in pushed.blobs}
    assert len(blobs(artifacts.store)) == 9
    first = artifacts.store.get(blob_key(entry.blobs[0]))
    assert first == BIG[:1_000]
    path = artifacts.pull("model:latest", tmp_path / "dest")
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert artifacts.verify("model:latest", full=True).ok
    assert artifacts.sizes(pushed)["stored_bytes"] == len(BIG) + 5
    assert not list(artifacts.store.list("leases/"))


def test_what_is_there_is_not_sent_again(artifacts: ArtifactStore, pushed: Manifest, make: Make) -> None:
    artifacts.stats.uploaded = 0
    assert artifacts.push("model", make("model", FILES), kind="files") == pushed
    assert artifacts.stats.uploaded == 0
    changed = BIG[:2_000] + b"x" * 1_000 + BIG[3_000:]
    child = artifacts.push("model", make("model", {"big.txt": changed}), kind="files")
    assert artifacts.stats.uploaded == 1_000
    assert (artifacts.pull(child) / "big.txt").read_bytes() == changed


def test_a_version_that_was_stored_whole_stays_the_same_version(artifacts: ArtifactStore, make: Make) -> None:
    artifacts.store.pieces = None  # type: ignore[attr-defined]
    whole = artifacts.push("model", make("model", FILES), kind="files")
    artifacts.store.pieces = RULE  # type: ignore[attr-defined]
    assert artifacts.push("model", make("model", FILES), kind="files") == whole
    assert (whole.format, len(artifacts.versions("model"))) == (1, 1)


def test_equal_pieces_of_one_file_are_one_blob(artifacts: ArtifactStore, make: Make) -> None:
    zeros = artifacts.push("zeros", make("zeros", {"big.txt": b"0" * 6_000}), kind="files")
    assert len(blobs(artifacts.store)) == 1
    assert (artifacts.pull(zeros) / "big.txt").read_bytes() == b"0" * 6_000
    assert artifacts.sizes(zeros) == {"logical_bytes": 6_000, "stored_bytes": 1_000, "shared_bytes": 0}


def test_no_more_pieces_than_the_rule_allows(artifacts: ArtifactStore, make: Make) -> None:
    files = {"at-most.txt": bytes(20_000), "too-many.txt": bytes(20_001), "below.txt": bytes(4_999)}
    manifest = artifacts.push("sizes", make("sizes", files), kind="files")
    assert {entry.path for entry in manifest.files if entry.pieces} == {"at-most.txt"}


def test_damage_is_found_named_and_mended(
    artifacts: ArtifactStore, pushed: Manifest, make: Make, tmp_path: Path
) -> None:
    other = ArtifactStore(open_store(str(tmp_path / "other")), tmp_path / "cache-other")
    assert copy(artifacts, other, pushed).same
    third = blob_key(big_of(pushed).blobs[2])
    artifacts.store.put(third, b"y" * 1_000)
    verifier = Verifier(artifacts.store, Depth(1.0))
    (report,) = verifier.run(verifier.plan([Subject.of(pushed)]))
    assert [third in problem and "big.txt" in problem for problem in report.problems] == [True]
    fresh = ArtifactStore(artifacts.store, tmp_path / "cache-fresh")
    with pytest.raises(IntegrityError, match="does not match its digest"):
        fresh.pull("model:latest", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    assert Repairer(artifacts.store, other.store).repair(Subject.of(pushed), report).ok
    assert (fresh.pull("model:latest", tmp_path / "dest") / "big.txt").read_bytes() == BIG
    artifacts.store.delete(third)
    assert "is missing" in artifacts.verify("model:latest").problems[0]


def test_a_collector_knows_the_pieces(artifacts: ArtifactStore, pushed: Manifest, make: Make) -> None:
    policy = Policy(grace=timedelta(0), restorable=timedelta(0))
    artifacts.store.put("blobs/ab/" + "ab" * 32, b"orphan")
    collector = Collector(artifacts.store, policy, threads=2)
    assert len(collector.run(collector.plan(later())).blobs) == 1
    assert artifacts.verify("model:latest", full=True).ok
    artifacts.remove_alias("model", "latest")
    remove(artifacts.store, Version.of(pushed))
    assert restore(artifacts.store, Version.of(pushed)) == pushed
    remove(artifacts.store, Version.of(pushed))
    collector.run(collector.plan(later()))
    assert not blobs(artifacts.store)


def test_a_condemned_piece_gets_another_key(artifacts: ArtifactStore, pushed: Manifest, make: Make) -> None:
    second = blob_key(big_of(pushed).blobs[1])
    condemn(artifacts.store, [second])
    twin = artifacts.push("twin", make("twin", {"big.txt": BIG}), kind="files")
    assert [bool(piece.nonce) for piece in big_of(twin).pieces or ()] == [n == 1 for n in range(8)]
    artifacts.store.delete(second)
    assert artifacts.verify("twin:latest", full=True).ok
    again = artifacts.push("third", make("twin", {"big.txt": BIG}), kind="files")  # the copy serves it too
    assert big_of(again).pieces == big_of(twin).pieces


def test_what_goes_missing_before_the_commit_is_sent_again(
    artifacts: ArtifactStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept: its leases were broken, and a collector took what it had sent."""
    create = Manifest.create

    def sleep(*given: object, **more: object) -> Manifest:
        manifest = create(*given, **more)  # type: ignore[arg-type]
        if manifest.files:
            for info in [*artifacts.store.list("leases/"), *artifacts.store.list("blobs/")]:
                artifacts.store.delete(info.key)
        return manifest

    monkeypatch.setattr(Manifest, "create", sleep)
    artifacts.push("model", make("model", FILES), kind="files")
    assert artifacts.verify("model:latest", full=True).ok


def test_a_file_that_changes_meanwhile_is_no_artifact(
    artifacts: ArtifactStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, put = make("model", FILES), artifacts.store.put

    def touch(key: str, data: bytes | Path, **more: str) -> None:
        if key.startswith("blobs/"):
            os.utime(folder / "big.txt", (1, 1))
        put(key, data, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(artifacts.store, "put", touch)
    with pytest.raises(Conflict, match=r"big.txt changed while it was pushed"):
        artifacts.push("model", folder, kind="files")
    assert artifacts.versions("model") == []


def test_an_error_on_the_way_ends_the_push(
    artifacts: ArtifactStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sent = artifacts.store.put, list[str]()

    def fail(key: str, data: bytes | Path, **more: str) -> None:
        if key.startswith("blobs/"):
            sent.append(key)
            if len(sent) == 3:
                raise BackendError("the server is on fire")
        put(key, data, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(artifacts.store, "put", fail)
    with pytest.raises(BackendError, match="on fire"):
        artifacts.push(
            "model", make("model", {"big.txt": random.Random(1).randbytes(10_000).hex().encode()}), kind="files"
        )
    assert len(sent) < 20
    assert artifacts.versions("model") == []
    assert not list(artifacts.store.list("leases/"))


def test_a_draft_may_be_in_pieces(artifacts: ArtifactStore, make: Make) -> None:
    entries = artifacts.stage(make("model", FILES), pin="run-1/1")
    again = [
        FileEntry.model_validate(entry.model_dump(exclude_none=True)) for entry in entries
    ]  # as a draft keeps them
    published = artifacts.commit(Manifest.create("model", again, kind="files"))
    artifacts.unpin("run-1/1")
    assert artifacts.verify(published.ref, full=True).ok
    assert (artifacts.pull(published) / "big.txt").read_bytes() == BIG


def test_through_a_tar(artifacts: ArtifactStore, pushed: Manifest, tmp_path: Path) -> None:
    archive.export(artifacts.store, [pushed], tmp_path / "one.tar")
    other = ArtifactStore(open_store(str(tmp_path / "other")), tmp_path / "cache-other")
    with unpacking.verified(tmp_path / "one.tar") as found:
        assert unpacking.take_in(other, found, found.manifests[0]).same
    assert (other.pull(pushed) / "big.txt").read_bytes() == BIG


def test_urls_of_all_pieces(artifacts: ArtifactStore, pushed: Manifest) -> None:
    if not isinstance(artifacts.store, S3Store):
        pytest.skip("a directory signs nothing")
    shared = sharing.presign(artifacts.store, pushed, ["big.txt"], 60)
    assert b"".join(urlopen(url).read() for url in shared.files[0].urls) == BIG


def test_an_older_reader_refuses_it_and_nobody_can_pretend(pushed: Manifest) -> None:
    """A collector that knew only format 1 would take the pieces for what nobody needs: it stops at a format it can't read."""
    data = pushed.to_json()
    assert b'"format":2' in data
    with pytest.raises(IntegrityError, match="format 1 of a manifest with pieces"):
        Manifest.from_json(data.replace(b'"format":2', b'"format":1'))
    with pytest.raises(IntegrityError, match=r"has format 3; expected 1 or 2"):
        Manifest.from_json(data.replace(b'"format":2', b'"format":3'))
    with pytest.raises(IntegrityError, match="bytes together; expected 7300"):
        Manifest.from_json(data.replace(b'"size":300', b'"size":301'))


CHILD = """
import os, signal, sys, threading
from pathlib import Path
from cluster.store import ArtifactStore, open_store, s3_download, s3_progress
from cluster.store.pieces import Rule

what, url, path = sys.argv[1:]
s3_download.RANGED_FROM, s3_progress.RANGE, s3_progress.SAVED_EVERY = 1 << 20, 2 << 20, 0
store, seen, lock = open_store(url), [], threading.Lock()
store.pieces = Rule(start=4 << 20, size=1 << 20)
artifacts = ArtifactStore(store, Path(path) / "cache")

def count(request, **_):
    with lock:
        if "/blobs/" in request.url and request.method == ("PUT" if what == "push" else "GET"):
            seen.append(1)
            if len(seen) == 9:
                os.kill(os.getpid(), signal.SIGKILL)

store.client.meta.events.register("before-send.s3", count)
artifacts.push("model", Path(path) / "big.txt", kind="files") if what == "push" else artifacts.pull("model:latest")
"""


def test_a_killed_push_or_pull_goes_on(
    backend: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(store, S3Store):
        pytest.skip("of the transfers with a server")
    monkeypatch.setattr(s3_download, "RANGED_FROM", 1 << 20)
    monkeypatch.setattr(s3_progress, "RANGE", 2 << 20)  # two pieces to a range
    store.pieces = Rule(start=4 << 20, size=1 << 20)
    data = random.Random(3).randbytes(8 << 20).hex().encode()[:-5]
    (tmp_path / "big.txt").write_bytes(data)
    kill_midway("push", store.url, tmp_path)
    assert not list(store.list("versions/"))
    wire, artifacts = Wire(store), ArtifactStore(store, tmp_path / "cache")
    manifest = artifacts.push("model", tmp_path / "big.txt", kind="files")
    assert artifacts.stats.reused >= 2 << 20  # eight had been begun, six at once at most
    assert artifacts.stats.uploaded + artifacts.stats.reused == len(data)
    assert wire.seen["CreateMultipartUpload"] == 0
    kill_midway("pull", store.url, tmp_path)
    (path,) = list((tmp_path / "cache").rglob("*.part"))
    assert path.name == f"{manifest.files[0].sha256}.part"
    before = len(wire.ranges)
    assert (artifacts.pull("model:latest") / "big.txt").read_bytes() == data
    assert 0 < len(wire.ranges) - before < 16
    assert not list((tmp_path / "cache").rglob("*.part*"))


def kill_midway(what: str, url: str, path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, what, url, str(path)], check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL


def test_a_server_without_ranges(
    moto_server: S3Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.use(monkeypatch)
    monkeypatch.setattr(s3_download, "RANGED_FROM", 1_000)
    store = open_store(f"s3://{moto_server.new_bucket()}/models")
    assert isinstance(store, S3Store)
    store.pieces = RULE
    artifacts = ArtifactStore(store, tmp_path / "cache")
    artifacts.push("model", make("model", FILES), kind="files")
    wire = Wire(store)

    def without(operation: str, request: AWSPreparedRequest) -> None:
        if "Range" in request.headers:
            del request.headers["Range"]

    wire.change = without
    assert (artifacts.pull("model:latest") / "big.txt").read_bytes() == BIG
