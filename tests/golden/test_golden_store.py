"""A store of format 1 as it was first written: whatever changes, it must load for ever. It is never written anew.

Two versions of one artifact (the second signed, one of its blobs at a key with a nonce) that descend from another artifact,
aliases with and without `prev` (of the time before records had a checksum), a version that was deleted, the lease of a push that
never ended, and a pin. The second one has a file in pieces, one of them at a key with a nonce.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from cluster.store import ArtifactStore, leases, open_store, trash
from cluster.store.catalog import deleted_versions
from cluster.store.gc import Collector
from cluster.store.retention import Policy
from tlgan.errors import NotFound

HERE = Path(__file__).parent / "store-v1"
BASE = "09e005d7af8e542410d0ad737c3f06af847d5856ed30fd94d4e4821a2c321a94"
FIRST = "12d26dd95a9a581131b9fa9370e1c163b0fa04e09723ed0dd34aab63fbae2643"
SECOND = "b47b99cc2aaf72cbd2a221f7b50660f033373ac61d704b3a95818c35272454f2"
DELETED = "e947f7f73602fa3260c3f1238972b563548e7b425edc2084a3a30b7ca7d7d97e"
TREE = "31a30f3d06bff358bb7dfcccaa83e2cada755706fff6d5c62668ab81eef6b385"


IN_PIECES = HERE.with_name("store-v1-pieces")
TREE_IN_PIECES = "ca7cc6f7bb60463f6895ba8b9474edd15b5f4cdf5d7337f97dd87a80d38d4900"
LARGE = "a3f85cb806eeb38f2071f4728d420b294711c854d58d4330201a8b61bb656808"


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    """Over a copy, all of it as old as it says."""
    copy = shutil.copytree(HERE, tmp_path / "store")
    for file in copy.rglob("*"):
        os.utime(file, (time.time() - 40 * 24 * 3600,) * 2)
    return ArtifactStore(open_store(str(copy)), tmp_path / "cache")


@pytest.mark.parametrize(("folder", "tree"), [(HERE, TREE), (IN_PIECES, TREE_IN_PIECES)])
def test_nobody_touched_it(folder: Path, tree: str) -> None:
    hasher = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            hasher.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    assert hasher.hexdigest() == tree


def test_references_resolve(artifacts: ArtifactStore) -> None:
    assert artifacts.names() == ["digits32", "glyphs32"]
    refs = {"glyphs32:latest": BASE, "digits32:best": FIRST, "digits32:latest": SECOND, "digits32@b47b": SECOND}
    assert {ref: artifacts.resolve(ref).digest for ref in refs} == refs
    assert [version.digest for version in artifacts.versions("digits32")] == [FIRST[:16], SECOND[:16]]
    with pytest.raises(NotFound, match="it was deleted"):
        artifacts.resolve(f"digits32@{DELETED}")


def test_everything_is_pulled_and_whole(artifacts: ArtifactStore, tmp_path: Path) -> None:
    for ref in ("glyphs32:latest", "digits32:best", "digits32:latest"):
        assert artifacts.verify(ref, full=True).problems == []
    path = artifacts.pull("digits32:latest", tmp_path / "dest", verify_key=HERE.with_suffix(".pem"))
    assert load_file(path / "G" / "b8.safetensors")["w"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    manifest = artifacts.resolve("digits32:latest")
    assert [entry.path for entry in manifest.files if entry.nonce] == ["G/b8.safetensors"]
    assert (artifacts.pull("glyphs32:latest") / "notes" / "read me (1).txt").read_text("utf-8") == "ünïcode\n"
    assert manifest.metrics[0]["value"] == 0.125
    assert artifacts.resolve("glyphs32:latest").recipe == {"train": {"kimg": 4, "lr_g": 2e-4}}


def test_where_it_comes_from(artifacts: ArtifactStore) -> None:
    found = artifacts.lineage("digits32:latest")
    (base,) = found["parents"]
    assert (base["digest"], base["role"], base["asked"]) == (BASE, "init", "glyphs32:latest")
    assert base["parents"][0]["external"]
    assert artifacts.sizes("digits32:latest")["stored_bytes"] < artifacts.sizes("digits32:latest")["logical_bytes"]


def test_aliases_know_what_was_before_and_move(artifacts: ArtifactStore) -> None:
    latest = artifacts.aliases("digits32")["latest"]
    assert (latest.digest, latest.prev and latest.prev.digest) == (SECOND, FIRST)
    assert artifacts.aliases("digits32")["best"].prev is None
    moved = artifacts.move_alias("digits32", "latest", FIRST, expect=SECOND)
    assert moved.prev is not None
    assert moved.prev.digest == SECOND


def test_what_was_deleted_comes_back(artifacts: ArtifactStore, tmp_path: Path) -> None:
    (deleted,) = deleted_versions(artifacts.store)
    assert deleted.digest == DELETED[:16]
    assert trash.restore(artifacts.store, deleted).digest == DELETED
    assert "regretted" in (artifacts.pull(f"digits32@{DELETED}", tmp_path / "dest") / "model.json").read_text()


def test_a_collector_takes_what_nothing_needs(artifacts: ArtifactStore) -> None:
    assert {lease.holder for lease, _ in leases.read_leases(artifacts.store)} == {"worker-1:4711"}
    collector = Collector(artifacts.store, Policy(restorable=timedelta(days=7)))
    done = collector.run(collector.plan(datetime.now(UTC)))
    assert len(done.blobs) == 1  # the deleted version's own
    assert len(done.broken) == 2
    for ref in ("glyphs32:latest", "digits32:best", "digits32:latest"):
        assert artifacts.verify(ref, full=True).problems == []


def test_pushing_goes_on(artifacts: ArtifactStore, tmp_path: Path) -> None:
    source = artifacts.pull("digits32:latest", tmp_path / "dest")
    again = artifacts.push("glyphs32", source, kind="gan")
    assert artifacts.stats.uploaded == 0
    assert artifacts.verify(again.ref, full=True).ok


def test_a_file_in_pieces_is_pulled_kept_and_pushed_again(tmp_path: Path) -> None:
    store = open_store(str(shutil.copytree(IN_PIECES, tmp_path / "store")))
    artifacts = ArtifactStore(store, tmp_path / "cache")
    collector = Collector(store, Policy(grace=timedelta(0), restorable=timedelta(0)))
    assert collector.plan(datetime.now(UTC) + timedelta(days=1)).keys == []
    assert artifacts.verify("photos:latest", full=True).problems == []
    path = artifacts.pull("photos:latest", tmp_path / "dest")
    assert hashlib.sha256((path / "images.txt").read_bytes()).hexdigest() == LARGE
    manifest = artifacts.resolve("photos:latest")
    assert (manifest.format, [bool(blob.nonce) for blob in manifest.blobs]) == (2, [False, True, False, False, False])
    assert artifacts.push("photos", path, kind="files") == manifest
    assert artifacts.stats.uploaded == 0
