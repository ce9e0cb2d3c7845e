"""Verification by structure, by a sample and in full; going on after an interrupt; mending from another store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.store import ArtifactStore, Store, Version, open_store
from cluster.store.condemned import condemn
from cluster.store.layout import FENCE, blob_key
from cluster.store.repairing import Repairer
from cluster.store.subjects import find, find_all, without_deleted
from cluster.store.verify_journal import Journal
from cluster.store.verifying import Depth, Subject, Verifier, VerifyReport
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import Manifest

Make = Callable[..., Path]
FILES = {"a.bin": b"a" * 1000, "b.bin": b"b" * 2000, "same.bin": b"a" * 1000}


@pytest.fixture
def pair(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> tuple[ArtifactStore, ArtifactStore, Manifest]:
    """A store, a directory that has the same, and the artifact."""
    pushed = artifacts.push("one", make("model", FILES), kind="files")
    other = ArtifactStore(open_store(str(tmp_path / "other")), tmp_path / "cache2")
    for info in artifacts.store.list():
        if not info.key.startswith("probe/"):
            other.store.put(info.key, artifacts.store.get(info.key))
    return artifacts, other, pushed


def key_of(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"blobs/{digest[:2]}/{digest}"


def examine(store: Store, ref: str, depth: Depth | None = None) -> tuple[Subject, VerifyReport]:
    subject, verifier = find(store, ref), Verifier(store, depth or Depth(1.0))
    return subject, verifier.run(verifier.plan([subject]))[0]


def mend(store: Store, source: Store, ref: str = "one:latest", depth: Depth | None = None) -> VerifyReport:
    return Repairer(store, source).repair(*examine(store, ref, depth))


def test_all_files_that_share_a_damaged_blob_are_named(artifacts: ArtifactStore, make: Make) -> None:
    artifacts.push("one", make("model", FILES), kind="files")
    artifacts.store.put(key_of(FILES["a.bin"]), b"x" * 1000)
    assert artifacts.verify("one:latest").ok
    report = artifacts.verify("one:latest", full=True)
    assert len(report.problems) == len(report.damaged) == 1
    assert report.problems[0].startswith(f"a.bin, same.bin: {key_of(FILES['a.bin'])} does not match its digest")
    with pytest.raises(IntegrityError, match=r"is damaged: a\.bin, same\.bin"):
        report.check()


def test_a_sample_is_drawn_by_its_seed(artifacts: ArtifactStore, make: Make) -> None:
    files = {f"{i:02}.bin": bytes([i]) * 1000 for i in range(40)}
    artifacts.push("one", make("model", files), kind="files")
    reads: list[int] = []
    drawn: list[set[str]] = []
    for seed in (1, 1, 2):
        verifier = Verifier(artifacts.store, Depth(0.1, seed))
        plan = verifier.plan([find(artifacts.store, "one:latest")])
        told: list[int] = []
        report = verifier.run(plan, told.append)[0]
        assert (report.ok, report.full, report.read) == (True, False, 4000)
        reads.append(sum(told))
        drawn.append(plan.drawn)
    assert reads == [4000, 4000, 4000]
    assert drawn[0] == drawn[1] != drawn[2]
    for key in drawn[0]:
        artifacts.store.put(key, b"x" * 1000)
    assert len(examine(artifacts.store, "one:latest", Depth(0.1, 1))[1].problems) == 4
    assert len(examine(artifacts.store, "one:latest", Depth(0.1, 2))[1].problems) == len(drawn[2] & drawn[0])


def test_blobs_that_artifacts_share_are_read_once(artifacts: ArtifactStore, make: Make) -> None:
    artifacts.push("one", make("model", FILES), kind="files")
    artifacts.push("two", make("model", {"c.bin": b"c" * 10}), kind="files")
    told: list[int] = []
    verifier = Verifier(artifacts.store, Depth(1.0))
    subjects, problems = find_all(artifacts.store)
    reports = verifier.run(verifier.plan(subjects), told.append)
    assert sum(told) == 3010
    assert [report.ref.partition("@")[0] for report in reports if report.ok and report.full] == ["one", "two"]
    assert problems == []


def test_an_interrupted_one_goes_on(tmp_path: Path, make: Make) -> None:
    store = open_store(str(tmp_path / "store"))
    files = {f"{i:02}.bin": bytes([i]) * 1000 for i in range(20)}
    ArtifactStore(store).push("one", make("model", files), kind="files")
    subject = find(store, "one:latest")

    def interrupt(size: int) -> None:
        nonlocal count
        count += 1
        if count >= 8:
            raise KeyboardInterrupt

    count = 0
    journal = Journal(store, tmp_path)
    journal.start(share=1.0, seed=5)
    verifier = Verifier(store, Depth(1.0), journal, threads=1)
    with pytest.raises(KeyboardInterrupt):
        verifier.run(verifier.plan([subject]), interrupt)
    again = Journal(store, tmp_path)
    with again.path.open("a") as file:
        file.write('{"key": "blobs/cut off')
    asked = again.resume()
    assert asked is not None
    assert (asked["share"], asked["seed"]) == (1.0, 5)
    assert len(again.verified) == 7
    told: list[int] = []
    plan = Verifier(store, Depth(1.0), again).plan([subject])
    report = Verifier(store, Depth(1.0), again).run(plan, told.append)[0]
    assert (plan.size(plan.before), sum(told)) == (7000, 13_000)
    assert (report.ok, report.full, report.read) == (True, True, 20_000)
    again.end()
    assert Journal(store, tmp_path).resume() is None


def test_what_was_verified_long_ago_is_read_again(tmp_path: Path) -> None:
    journal = Journal(open_store(str(tmp_path / "store")), tmp_path)
    journal.start(share=1.0, seed=5)
    journal.add("blobs/new", 3)
    with journal.path.open("a") as file:
        file.write('{"key": "blobs/old", "size": 3, "at": "2020-01-01T00:00:00.000000Z"}\n')
    assert journal.resume() is not None
    assert journal.verified == {"blobs/new": 3}


Spoil = Callable[[Store, Manifest], Any]
SPOILERS: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda store, _: store.delete(key_of(FILES["a.bin"])), "is missing"),
    "short": (lambda store, _: store.put(key_of(FILES["a.bin"]), b"a"), "has 1 bytes, expected 1000"),
    "flipped": (lambda store, _: store.put(key_of(FILES["a.bin"]), b"x" * 1000), "does not match its digest"),
    "manifest": (lambda store, m: store.put(Version.of(m).key, b"{}" * 30), "manifest: versions/one/"),
    "empty manifest": (lambda store, m: store.put(Version.of(m).key, b""), "manifest: versions/one/"),
    "lost manifest": (lambda store, m: store.delete(Version.of(m).key), "which is not in"),
}


@pytest.mark.parametrize("spoiled", SPOILERS)
def test_another_store_mends_it(pair: tuple[ArtifactStore, ArtifactStore, Manifest], spoiled: str) -> None:
    artifacts, other, pushed = pair
    spoil, said = SPOILERS[spoiled]
    spoil(artifacts.store, pushed)
    found = examine(artifacts.store, "one:latest")[1]
    assert len(found.problems) == 1
    assert said in found.problems[0]
    report = mend(artifacts.store, other.store)
    assert (report.ok, report.repaired) == (True, found.problems)
    assert artifacts.verify("one:latest", full=True).ok
    assert artifacts.resolve("one:latest") == pushed
    assert not list(artifacts.store.list("leases/"))


def test_a_lost_manifest_comes_back_after_its_blobs(pair: tuple[ArtifactStore, ArtifactStore, Manifest]) -> None:
    artifacts, other, pushed = pair
    artifacts.store.delete(Version.of(pushed).key)
    artifacts.store.delete(key_of(FILES["b.bin"]))
    other.store.delete(key_of(FILES["b.bin"]))
    report = mend(artifacts.store, other.store)
    assert not report.ok
    assert "has no whole copy of it" in report.problems[1]
    assert artifacts.store.head(Version.of(pushed).key) is None
    other.store.put(key_of(FILES["b.bin"]) + "-0123456789abcdef", FILES["b.bin"])  # kept at another key there
    report = mend(artifacts.store, other.store)
    assert (report.ok, len(report.repaired)) == (True, 2)
    assert artifacts.verify("one:latest", full=True).ok


def test_what_can_be_mended_is(pair: tuple[ArtifactStore, ArtifactStore, Manifest]) -> None:
    artifacts, other, _ = pair
    for data in (FILES["a.bin"], FILES["b.bin"]):
        artifacts.store.delete(key_of(data))
    other.store.put(key_of(FILES["a.bin"]), b"x" * 1000)
    report = mend(artifacts.store, other.store)
    assert [text.partition(":")[0] for text in report.repaired] == ["b.bin"]
    assert [entry.path for entry in report.damaged] == ["same.bin"]
    assert report.problems[0].startswith("a.bin, same.bin: ")
    assert report.problems[0].endswith("has no whole copy of it")
    assert artifacts.store.get(key_of(FILES["b.bin"])) == FILES["b.bin"]


def test_what_is_being_collected_is_left_alone(pair: tuple[ArtifactStore, ArtifactStore, Manifest]) -> None:
    artifacts, other, pushed = pair
    artifacts.store.delete(key_of(FILES["b.bin"]))
    condemned = condemn(artifacts.store, [key_of(FILES["b.bin"])])
    report = mend(artifacts.store, other.store)
    assert "a collection may delete it at any time" in report.problems[0]
    assert artifacts.store.head(key_of(FILES["b.bin"])) is None
    artifacts.store.delete(condemned.key)
    condemned = condemn(artifacts.store, [Version.of(pushed).key])
    assert "is being collected" in mend(artifacts.store, other.store).problems[0]
    artifacts.store.delete(condemned.key)
    artifacts.store.delete(Version.of(pushed).key)
    condemned = condemn(artifacts.store, [blob_key(pushed.files[0])])
    assert "are being collected" in mend(artifacts.store, other.store).problems[0]
    assert artifacts.store.head(Version.of(pushed).key) is None
    artifacts.store.delete(condemned.key)
    assert mend(artifacts.store, other.store).ok


def test_a_fence_stays_where_it_is(pair: tuple[ArtifactStore, ArtifactStore, Manifest]) -> None:
    artifacts, other, pushed = pair
    artifacts.store.put(Version.of(pushed).key, FENCE)
    assert "was given up before it was published" in mend(artifacts.store, other.store).problems[0]
    assert artifacts.store.get(Version.of(pushed).key) == FENCE


def test_the_other_store_is_not_trusted(pair: tuple[ArtifactStore, ArtifactStore, Manifest]) -> None:
    artifacts, other, pushed = pair
    artifacts.store.put(Version.of(pushed).key, b"{}" * 30)
    forged = Manifest.create("one", [], kind="files", created=pushed.created)
    other.store.put(Version.of(pushed).key, forged.to_json())
    report = mend(artifacts.store, other.store)
    assert "does not match its digest" in report.problems[0].partition("not mended")[2]
    assert artifacts.store.get(Version.of(pushed).key) == b"{}" * 30


def test_everything_of_a_store(artifacts: ArtifactStore, make: Make) -> None:
    one = artifacts.push("one", make("model", FILES), kind="files", aliases=["latest", "best"])
    two = artifacts.push("two", make("second", {"c.bin": b"c"}), kind="files")
    three = artifacts.push("three", make("third", {"d.bin": b"d"}), kind="files", aliases=())
    artifacts.store.put("aliases/one/best.json", b"{")
    artifacts.store.put(Version.of(three).key, b"{}" * 40)
    artifacts.store.delete(Version.of(two).key)
    artifacts.store.put("versions/four/20260101T000000000000Z-0123456789abcdef.json", FENCE)
    subjects, problems = find_all(artifacts.store)
    assert [text.partition(":")[0] for text in problems] == ["alias one"]
    assert {subject.version.ref: subject.manifest for subject in subjects} == {
        one.ref: one,
        three.ref: None,
        two.ref: None,
    }
    assert "the alias two:latest points at it" in str(subjects[-1].problem)
    assert subjects[-1].digest == two.digest
    artifacts.store.delete(Version.of(one).key)
    assert [subject.version.ref for subject in without_deleted(artifacts.store, subjects)] == [three.ref, two.ref]


def test_references_that_name_nothing_are_no_damage(artifacts: ArtifactStore, make: Make) -> None:
    pushed = artifacts.push("one", make("model", FILES), kind="files")
    for ref in ("one:best", "two:latest", "one@0123456789"):
        with pytest.raises(NotFound, match="does not exist"):
            find(artifacts.store, ref)
    artifacts.store.put(f"deleted/{Version.of(pushed).key.removeprefix('versions/')}", pushed.to_json())
    artifacts.store.delete(Version.of(pushed).key)
    with pytest.raises(NotFound, match="points at"):  # deleted on purpose: there is something else to do than to mend
        find(artifacts.store, "one:latest")
