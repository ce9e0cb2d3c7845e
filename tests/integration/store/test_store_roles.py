"""The shipped policies: each role can do its work with them and no more. On Ceph, and before moto by a proxy that reads them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dialects import Proxy
from roles import Enforces
from servers import ROLES, S3Server, policy_of

from cluster.store import ArtifactStore, leases, open_store, trash
from cluster.store.catalog import deleted_versions
from cluster.store.gc import Collector
from cluster.store.layout import Version, blob_key
from cluster.store.retention import Policy
from tlgan.errors import BackendError, Conflict, NotFound
from tlgan.manifest import Manifest

As = Callable[[str], ArtifactStore]


@pytest.fixture(params=["proxy", "rgw"])
def as_role(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[As]:
    """`as_role("worker")`: the store as that role sees it; "owner" may everything."""
    server: S3Server = request.getfixturevalue("moto_server" if request.param == "proxy" else "rgw_server")
    server.use(monkeypatch)
    bucket = server.new_bucket(shared=request.param == "rgw")
    dialect = Enforces()
    proxy = Proxy(server, dialect) if request.param == "proxy" else None

    def become(role: str) -> ArtifactStore:
        if proxy:
            dialect.statements = policy_of(role, bucket, "models") if role in ROLES else None
            monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
        else:
            server.as_user(role).use(monkeypatch)
        return ArtifactStore(f"s3://{bucket}/models", tmp_path / f"cache-{role}")

    yield become
    if proxy:
        proxy.http.shutdown()
        proxy.http.server_close()


def publish(artifacts: ArtifactStore, tmp_path: Path, text: str) -> Manifest:
    (tmp_path / "weights.txt").write_text(text)
    return artifacts.push("model", tmp_path / "weights.txt", kind="files")


def refused(action: Callable[[], object]) -> None:
    with pytest.raises(BackendError, match="refuses the credentials"):
        action()


def test_a_worker_works_and_is_quiet_about_what_it_may_not(
    as_role: As, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tlgan")
    worker = as_role("worker")
    first = publish(worker, tmp_path, "one")  # into an empty bucket: the format, too
    second = publish(worker, tmp_path, "two")
    assert worker.resolve("model:latest") == second
    assert worker.move_alias("model", "best", first.digest, expect="none").digest == first.digest
    assert (worker.pull("model:best") / "weights.txt").read_text() == "one"
    worker.stage({"a.txt": tmp_path / "weights.txt"}, pin="trial-1")
    worker.unpin("trial-1")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert len(list(leases.read_leases(worker.store))) >= 3


def test_large_files_of_a_worker(as_role: As, tmp_path: Path) -> None:
    worker = as_role("worker")
    big = tmp_path / "big.txt"
    big.write_bytes(b"0123456789abcdef" * (20 << 16))
    manifest = worker.push("big", big, kind="files")
    assert worker.verify(manifest.ref, full=True).ok


def test_what_a_worker_may_not(as_role: As, tmp_path: Path) -> None:
    worker = as_role("worker")
    manifest = publish(worker, tmp_path, "one")
    version, key = Version.of(manifest), blob_key(manifest.files[0])
    for place in (key, version.key, "FORMAT.json", "aliases/model/latest.json", "runs/x/run.json"):
        refused(lambda place=place: worker.store.delete(place))  # type: ignore[misc]
    for place in ("gc/1.json", f"deleted/model/{version.id}.json"):
        refused(lambda place=place: worker.store.put(place, b"{}"))  # type: ignore[misc]
    refused(lambda: trash.remove(worker.store, version))
    collector = Collector(worker.store, Policy(grace=timedelta(0)))
    publish(worker, tmp_path, "two")
    plan = collector.plan(datetime.now(UTC) + timedelta(days=30))
    assert not plan.keys or not refused(lambda: collector.run(plan))
    assert worker.pull(manifest.ref, tmp_path / "dest")


def test_a_reader_reads_everything_and_writes_nothing(as_role: As, tmp_path: Path) -> None:
    manifest = publish(as_role("owner"), tmp_path, "one")
    reader = as_role("reader")
    before = {info.key for info in reader.store.list()}
    assert reader.names() == ["model"]
    assert [version.digest for version in reader.versions("model")] == [manifest.digest[:16]]
    assert reader.show("model:latest")["aliases"] == ["latest"]
    assert reader.lineage("model:latest")["digest"] == manifest.digest
    assert reader.verify("model:latest", full=True).ok
    assert (reader.pull("model:latest") / "weights.txt").read_text() == "one"
    assert Collector(reader.store, Policy()).plan().live == 1
    with pytest.raises(NotFound):
        reader.resolve("model:none")
    refused(lambda: publish(reader, tmp_path, "two"))
    refused(lambda: reader.store.put("blobs/aa/x", b"x"))
    refused(lambda: reader.store.delete(Version.of(manifest).key))
    with pytest.raises(BackendError):
        reader.move_alias("model", "best", manifest.digest)
    assert {info.key for info in reader.store.list()} == before


def test_a_collector_collects(as_role: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = as_role("worker")
    first, second, third = (publish(worker, tmp_path, text) for text in ("one", "two", "three"))
    collector = as_role("collector")
    with pytest.raises(Conflict, match="is being published"):  # the worker's lease, which nobody dropped
        trash.remove(collector.store, Version.of(first))
    monkeypatch.setattr(leases, "expired", lambda lease, info, now: True)  # 15 minutes later
    with pytest.raises(Conflict, match="never told that it ended") as error:
        trash.remove(collector.store, Version.of(first))
    assert "delete it again" in str(error.value.hint)
    trash.remove(collector.store, Version.of(first))
    trash.restore(collector.store, deleted_versions(collector.store)[0])
    assert collector.resolve(first.ref)
    policy = Policy(keep_last=1, grace=timedelta(0), restorable=timedelta(0))
    gc = Collector(collector.store, policy)
    gc.run(gc.plan(datetime.now(UTC) + timedelta(seconds=2)))  # breaks the leases of the others
    done = gc.run(gc.plan(datetime.now(UTC) + timedelta(seconds=2)))
    assert second.ref in done.versions
    assert collector.verify(third.ref, full=True).ok
    assert list(collector.store.list("gc/")) == []
    assert [info for info in collector.store.list("leases/") if info.key.endswith(".json")] == []
    refused(lambda: collector.store.put("blobs/aa/x", b"x"))
    refused(lambda: collector.store.put("signatures/model/x.sig", b"x"))
    assert open_store(collector.url).get("FORMAT.json")
