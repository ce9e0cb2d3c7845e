"""Push, pull, references and aliases, the same over a directory, moto and rclone."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, Store, Version
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import Manifest, Parent
from tlgan.recipe import TrainSpec

Make = Callable[..., Path]
FILES = {"G/block0.safetensors": b"G" * 1000, "D/block0.safetensors": b"D" * 2000, "index.json": b"{}"}


def blobs(store: Store) -> list[str]:
    return [info.key for info in store.list("blobs/")]


def tree(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def spoil(artifacts: ArtifactStore, content: bytes) -> None:
    """Flips one byte of the stored blob with this content."""
    digest = hashlib.sha256(content).hexdigest()
    artifacts.store.put(f"blobs/{digest[:2]}/{digest}", bytes([content[0] ^ 1]) + content[1:])


def test_what_is_pushed_is_pulled(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> None:
    pushed = artifacts.push("digits32", make("model", FILES), kind="gan", recipe=TrainSpec(kimg=1), facts={"n": 3})
    assert pushed.recipe is not None
    assert pushed.recipe["kimg"] == 1
    manifest = artifacts.resolve("digits32:latest")
    assert manifest == pushed == artifacts.resolve(f"digits32@{pushed.digest[:6]}")
    assert artifacts.names() == ["digits32"]
    assert tree(artifacts.pull("digits32:latest")) == FILES
    dest = tmp_path / "new" / "dest"
    assert artifacts.pull("digits32:latest", dest) == dest
    assert tree(dest) == FILES
    assert list(dest.parent.iterdir()) == [dest]
    stored = {info.key for info in artifacts.store.list()}
    assert {"FORMAT.json", Version.of(pushed).key, "aliases/digits32/latest.json"} < stored
    for key in blobs(artifacts.store):
        assert hashlib.sha256(artifacts.store.get(key)).hexdigest() == key.rpartition("/")[2]
    assert hashlib.sha256(artifacts.store.get(Version.of(pushed).key)).hexdigest() == pushed.digest


def test_pushing_again_sends_nothing_and_gives_the_same_version(artifacts: ArtifactStore, make: Make) -> None:
    first = artifacts.push("digits32", make("model", FILES), kind="gan")
    assert artifacts.stats.uploaded == first.size == 3002
    again = ArtifactStore(artifacts.store)
    second = again.push("digits32", make("model", FILES), kind="gan", aliases=["best"])
    assert (again.stats.uploaded, again.stats.reused) == (0, 3002)
    assert second == first
    assert sorted(again.aliases("digits32")) == ["best", "latest"]
    third = again.push("digits32", make("model", FILES), kind="gan", facts={"note": "another"})
    assert again.stats.uploaded == 0
    assert [version.ref for version in again.versions("digits32")] == [first.ref, third.ref]


def test_contents_are_shared(artifacts: ArtifactStore, make: Make) -> None:
    base = artifacts.push("base", make("base", FILES), kind="gan")
    tuned_files = FILES | {"G/block0.safetensors": b"g" * 1000, "copy.json": b"{}"}
    parent = Parent(role="init", ref="base:latest", digest=base.digest)
    tuned = artifacts.push("tuned", make("tuned", tuned_files), kind="gan", parents=[parent])
    assert len(blobs(artifacts.store)) == 4
    assert artifacts.sizes("tuned:latest") == {"logical_bytes": 3004, "stored_bytes": 1000, "shared_bytes": 2002}
    assert artifacts.sizes(base) == {"logical_bytes": 3002, "stored_bytes": 3002, "shared_bytes": 0}
    assert tree(artifacts.pull(tuned)) == tuned_files
    shown = artifacts.show("tuned:latest")
    json.dumps(shown)
    assert shown["digest"] == tuned.digest
    assert shown["parents"][0]["ref"] == "base:latest"
    assert shown["aliases"] == ["latest"]
    assert shown["stored_bytes"] == 1000


def test_a_single_file_and_a_mapping(artifacts: ArtifactStore, make: Make) -> None:
    source = make("model", FILES)
    one = artifacts.push("one", source / "index.json", kind="files")
    assert [entry.path for entry in one.files] == ["index.json"]
    two = artifacts.push("two", {"x/y.json": source / "index.json"}, kind="files", aliases=[])
    assert tree(artifacts.pull(two.ref)) == {"x/y.json": b"{}"}
    assert artifacts.aliases("two") == {}
    none = artifacts.push("none", {}, kind="dataset", facts={"count": 5})
    assert tree(artifacts.pull(none.ref)) == {}


def test_stage_shows_nothing_until_commit(artifacts: ArtifactStore, make: Make) -> None:
    entries = artifacts.stage(make("model", FILES), pin="test")
    assert artifacts.names() == []
    assert artifacts.stats.uploaded == 3002
    manifest = Manifest.create("digits32", entries, kind="gan")
    elsewhere = ArtifactStore(artifacts.store)  # another process commits what this one staged
    assert elsewhere.commit(manifest, ["best"]) == manifest
    assert elsewhere.commit(manifest, ["best"]) == manifest
    assert artifacts.resolve("digits32:best") == manifest
    lost = entries[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(NotFound, match=r"D/block0\.safetensors: its content 0+ is not in"):
        artifacts.commit(Manifest.create("other", [lost], kind="gan"))
    assert artifacts.names() == ["digits32"]


def test_missing_references_name_what_is_near(artifacts: ArtifactStore, make: Make) -> None:
    with pytest.raises(NotFound, match="there is no artifact") as error:
        artifacts.resolve("digits32:latest")
    assert "the store is empty" in str(error.value.hint)
    manifest = artifacts.push("digits32", make("model", FILES), kind="gan", aliases=["latest", "best"])
    with pytest.raises(NotFound, match='did you mean "digits32"') as error:
        artifacts.resolve("digit32:latest")
    assert error.value.hint == "artifacts there: digits32"
    with pytest.raises(NotFound, match='did you mean "best"') as error:
        artifacts.pull("digits32:bset")
    assert error.value.hint == f"aliases of digits32: best, latest; newest version: {manifest.ref}"
    wrong = ("0" if manifest.digest[0] != "0" else "1") * 8
    with pytest.raises(NotFound, match=f"no version starts with {wrong}"):
        artifacts.resolve(f"digits32@{wrong}")
    almost = manifest.digest[:20] + ("0" if manifest.digest[20] != "0" else "1")
    with pytest.raises(IntegrityError):
        artifacts.resolve(f"digits32@{almost}")
    with pytest.raises(SpecError, match="does not say which version"):
        artifacts.resolve("digits32")


def test_aliases_move_and_remember(artifacts: ArtifactStore, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    first = artifacts.push("digits32", make("model", FILES), kind="gan")
    second = artifacts.push("digits32", make("model", {"index.json": b"{2}"}), kind="gan")
    latest = artifacts.aliases("digits32")["latest"]
    assert latest.digest == second.digest
    assert latest.prev is not None
    assert latest.prev.digest == first.digest
    assert artifacts.move_alias("digits32", "latest", second.digest).op == latest.op  # already there
    with pytest.raises(NotFound):
        artifacts.move_alias("digits32", "latest", "0" * 64)
    for bad in ("no digest", "ab", "NONE"):
        with pytest.raises(SpecError, match="expected to point at"):
            artifacts.move_alias("digits32", "latest", first.digest, expect=bad)
    if artifacts.single_writer:
        with pytest.raises(BackendError, match="with an expectation: the server does not honour"):
            artifacts.move_alias("digits32", "latest", first.digest, expect=second.digest)
        assert "single-writer mode" in caplog.text
        return
    assert caplog.record_tuples == []
    with pytest.raises(Conflict, match=f"points at {second.digest[:16]}; expected {first.digest}"):
        artifacts.move_alias("digits32", "latest", first.digest, expect=first.digest)
    moved = artifacts.move_alias("digits32", "latest", first.digest[:8], expect=second.digest[:12])
    assert moved.digest == first.digest
    assert artifacts.resolve("digits32:latest") == first
    assert artifacts.move_alias("digits32", "gold", first.digest, expect="none").prev is None
    with pytest.raises(Conflict, match="expected none"):
        artifacts.move_alias("digits32", "gold", second.digest, expect="none")
    with pytest.raises(Conflict, match="does not exist"):
        artifacts.move_alias("digits32", "silver", second.digest, expect=second.digest)


def test_a_damaged_blob_reaches_nobody(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> None:
    artifacts.push("digits32", make("model", FILES), kind="gan")
    spoil(artifacts, FILES["D/block0.safetensors"])
    for dest in (tmp_path / "deep" / "dest", None):
        with pytest.raises(IntegrityError, match="does not match its digest"):
            artifacts.pull("digits32:latest", dest)
    assert not (tmp_path / "deep").exists()
    assert not (tmp_path / "cache" / "artifacts").exists()
    assert artifacts.verify("digits32:latest").ok
    report = artifacts.verify("digits32:latest", full=True)
    assert [problem.partition(":")[0] for problem in report.problems] == ["D/block0.safetensors"]
    with pytest.raises(IntegrityError, match=r"D/block0\.safetensors"):
        report.check()


def test_verify_sees_missing_and_short_blobs(artifacts: ArtifactStore, make: Make) -> None:
    manifest = artifacts.push("digits32", make("model", FILES), kind="gan")
    assert artifacts.verify(manifest.ref, full=True).ok
    keys = {entry.path: f"blobs/{entry.sha256[:2]}/{entry.sha256}" for entry in manifest.files}
    artifacts.store.delete(keys["index.json"])
    artifacts.store.put(keys["D/block0.safetensors"], b"short")
    first, second = artifacts.verify(manifest.ref).problems
    assert "has 5 bytes, expected 2000" in first
    assert "is missing" in second
    again = ArtifactStore(artifacts.store)
    again.push("digits32", make("model", FILES), kind="gan")  # pushing mends what verify without --full can see
    assert again.verify(manifest.ref, full=True).ok


@pytest.mark.parametrize("place", ["manifest", "alias", "format"])
def test_damaged_records_are_said(artifacts: ArtifactStore, make: Make, place: str) -> None:
    manifest = artifacts.push("digits32", make("model", FILES), kind="gan")
    places = {"manifest": Version.of(manifest).key, "alias": "aliases/digits32/latest.json", "format": "FORMAT.json"}
    data = bytearray(artifacts.store.get(places[place]))
    data[len(data) // 2] ^= 0x80
    artifacts.store.put(places[place], bytes(data))
    with pytest.raises(BackendError if place == "format" else IntegrityError):
        ArtifactStore(artifacts.store).pull("digits32:latest")


def test_a_damaged_alias_is_mended_by_moving_it(
    artifacts: ArtifactStore, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = artifacts.push("digits32", make("model", FILES), kind="gan")
    artifacts.store.put("aliases/digits32/latest.json", b"torn")
    artifacts.move_alias("digits32", "latest", manifest.digest)
    assert "it is replaced" in caplog.text
    assert artifacts.resolve("digits32:latest") == manifest


def test_another_format_is_refused(artifacts: ArtifactStore) -> None:
    artifacts.store.put("FORMAT.json", json.dumps({"format": "tlgan-store", "version": 2}).encode())
    with pytest.raises(BackendError, match="has format tlgan-store 2; this tlgan reads tlgan-store 1"):
        artifacts.names()


def test_lineage_reaches_the_roots(artifacts: ArtifactStore, make: Make) -> None:
    data = Parent(role="data", ref="glyphs", digest="aa" * 32, external=True)
    base = artifacts.push("glyphs32", make("base", FILES), kind="gan", parents=[data])
    gone = artifacts.push("gone", {}, kind="dataset", facts={"count": 100})
    parents = [
        Parent(role="init", ref="glyphs32:latest", digest=base.digest),
        Parent(role="data", ref="gone:latest", digest=gone.digest),
        Parent(role="extractor", ref="glyphs32:latest", digest=base.digest),
    ]
    tuned = artifacts.push("digits32", make("tuned", {"a": b"1"}), kind="gan", parents=parents)
    artifacts.store.delete(Version.of(gone).key)
    found = artifacts.lineage("digits32:latest")
    json.dumps(found)
    assert (found["ref"], found["digest"], found["role"]) == (tuned.ref, tuned.digest, "self")
    init, lost, extractor = found["parents"]
    assert (init["ref"], init["asked"], init["kind"]) == (base.ref, "glyphs32:latest", "gan")
    assert init["parents"][0]["external"]
    assert init["parents"][0]["digest"] == "aa" * 32
    assert lost["missing"]
    assert lost["digest"] == gone.digest
    assert extractor["repeated"]
    assert extractor["parents"] == []


def test_a_destination_is_respected(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> None:
    artifacts.push("digits32", make("model", FILES), kind="gan")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tree(artifacts.pull("digits32:latest", empty)) == FILES
    before = artifacts.stats.downloaded
    assert artifacts.pull("digits32:latest", empty) == empty  # it is there already
    assert artifacts.stats.downloaded == before
    (empty / "index.json").write_bytes(b"[]")
    other = make("other", {"mine.txt": b"precious"})
    for dest in (empty, other, other / "mine.txt"):
        with pytest.raises(Conflict):
            artifacts.pull("digits32:latest", dest)
    assert tree(other) == {"mine.txt": b"precious"}
    with pytest.raises(BackendError, match="can't write"):
        artifacts.pull("digits32:latest", Path("/proc/none/dest"))


def test_files_that_can_not_travel_are_refused_first(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> None:
    source = make("model", FILES)
    (source / "link").symlink_to(source / "index.json")
    with pytest.raises(SpecError, match="symbolic link"):
        artifacts.push("digits32", source, kind="gan")
    (source / "link").unlink()
    os.mkfifo(source / "pipe")
    with pytest.raises(SpecError, match="neither a file nor a directory"):
        artifacts.push("digits32", source, kind="gan")
    with pytest.raises(NotFound, match="does not exist"):
        artifacts.push("digits32", tmp_path / "none", kind="gan")
    with pytest.raises(SpecError, match="differ only by case"):
        artifacts.push("digits32", make("case", {"a": b"", "A": b""}), kind="gan")
    with pytest.raises(SpecError, match="artifact name"):
        artifacts.push("Digits", make("good", FILES), kind="gan")
    with pytest.raises(SpecError, match="JSON"):
        artifacts.push("digits32", make("good", FILES), kind="gan", metrics=[{"value": float("inf")}])
    assert blobs(artifacts.store) == []


def test_it_travels_to_workers(artifacts: ArtifactStore, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    artifacts.push("digits32", make("model", FILES), kind="gan")
    copy = pickle.loads(pickle.dumps(artifacts))
    assert tree(copy.pull("digits32:latest")) == FILES
