"""Copies between stores of every kind: only what is missing is sent, digests stay, and a copy that was killed goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, Store, Version, open_store
from cluster.store.condemned import condemn
from cluster.store.copying import check_aliases, copy, family
from cluster.store.gc import delete_version
from cluster.store.layout import blob_key
from cluster.store.moving import workroom
from tlgan.errors import BackendError, IntegrityError, NotFound, SpecError
from tlgan.manifest import Manifest, Parent

Make = Callable[..., Path]
FILES = {"a.bin": b"a" * 1000, "b/c.bin": b"c" * 2000, "same.bin": b"a" * 1000}


@pytest.fixture
def other(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(open_store(str(tmp_path / "other")), tmp_path / "cache2")


@pytest.fixture
def pushed(artifacts: ArtifactStore, make: Make) -> Manifest:
    return artifacts.push("one", make("model", FILES), kind="files", facts={"note": "x"})


def tree(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_there_and_back(artifacts: ArtifactStore, other: ArtifactStore, pushed: Manifest, tmp_path: Path) -> None:
    there = copy(artifacts, other, pushed)
    assert (there.manifest, there.same, there.uploaded, there.reused) == (pushed, True, 3000, 0)
    assert other.aliases("one") == {}
    assert other.verify(pushed.ref, full=True).ok
    assert tree(other.pull(pushed.ref, tmp_path / "there")) == FILES
    assert not list(other.store.list("leases/"))
    again = copy(artifacts, other, pushed, ["best"])
    assert (again.uploaded, again.reused) == (0, 3000)
    assert list(other.aliases("one")) == ["best"]
    for info in [*artifacts.store.list("blobs/"), *artifacts.store.list("versions/")]:
        artifacts.store.delete(info.key)
    back = copy(other, artifacts, other.resolve("one:best"))
    assert (back.manifest, back.uploaded) == (pushed, 3000)
    assert artifacts.resolve("one:latest") == pushed
    assert artifacts.verify("one:latest", full=True).ok
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_only_what_is_missing_is_sent(artifacts: ArtifactStore, other: ArtifactStore, make: Make) -> None:
    other.push("mine", make("mine", {"x": FILES["a.bin"]}), kind="files")
    sent = other.stats.uploaded
    copied = copy(artifacts, other, artifacts.push("one", make("model", FILES), kind="files"))
    assert (copied.uploaded, copied.reused, other.stats.uploaded - sent) == (2000, 1000, 2000)


def test_a_damaged_blob_does_not_travel(artifacts: ArtifactStore, other: ArtifactStore, pushed: Manifest) -> None:
    artifacts.store.put(blob_key(pushed.files[1]), b"x" * 2000)
    with pytest.raises(IntegrityError, match="does not match its digest"):
        copy(artifacts, other, pushed)
    assert other.versions("one") == []
    assert not list(other.store.list("leases/"))
    artifacts.store.put(blob_key(pushed.files[1]), FILES["b/c.bin"])
    assert copy(artifacts, other, pushed).uploaded <= 3000
    assert other.verify(pushed.ref, full=True).ok


class Dying:
    """A store that stops to take anything after `left` bytes."""

    def __init__(self, store: Store, left: int) -> None:
        self.store, self.left = store, left

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        if key.startswith("blobs/"):
            self.left -= data.stat().st_size if isinstance(data, Path) else len(data)
            if self.left < 0:
                raise BackendError("the cable was pulled")
        self.store.put(key, data, sha256=sha256)


def test_a_copy_that_broke_off_goes_on(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> None:
    files = {f"{i}.bin": bytes([i]) * 1000 for i in range(10)}
    pushed = artifacts.push("one", make("ten", files), kind="files")
    target = open_store(str(tmp_path / "other"))
    with pytest.raises(BackendError, match="cable"):
        copy(artifacts, ArtifactStore(Dying(target, 4500), tmp_path / "cache2", threads=1), pushed)  # type: ignore[arg-type]
    assert len(list(target.list("blobs/"))) == 4
    assert not list(target.list("versions/"))
    done = copy(artifacts, ArtifactStore(target, tmp_path / "cache2"), pushed)
    assert (done.same, done.uploaded, done.reused) == (True, 6000, 4000)


def test_a_key_that_is_condemned_there_gets_another(
    artifacts: ArtifactStore, other: ArtifactStore, pushed: Manifest
) -> None:
    copy(artifacts, other, pushed)
    assert delete_version(other.store, Version.of(pushed))
    condemn(other.store, [blob_key(pushed.files[0])])
    there = copy(artifacts, other, pushed)
    assert not there.same
    assert there.source == pushed
    assert there.manifest.same_content(pushed)
    assert blob_key(there.manifest.files[0]) != blob_key(pushed.files[0])
    assert other.verify(there.manifest.ref, full=True).ok
    further = copy(other, artifacts, there.manifest)  # its keys come along
    assert (further.same, further.manifest.digest) == (True, there.manifest.digest)


def test_parents_come_first(artifacts: ArtifactStore, other: ArtifactStore, make: Make) -> None:
    outside = Parent(role="data", ref="57000 glyphs", digest="ab" * 32, external=True)
    base = artifacts.push("base", make("a", {"a": b"a"}), kind="files", parents=[outside])
    gone = artifacts.push("gone", make("g", {"g": b"g"}), kind="files")
    of = [Parent(role="init", ref=f"{one.name}:latest", digest=one.digest) for one in (base, gone)]
    child = artifacts.push("child", make("b", {"b": b"b"}), kind="files", parents=of)
    second = artifacts.push("second", make("c", {"c": b"c"}), kind="files", parents=of[:1])
    delete_version(artifacts.store, Version.of(gone))
    found = family(artifacts, ["child:latest", "second:latest", child.ref], with_parents=True)
    assert found.manifests == [base, child, second]
    assert found.asked == {child.digest, second.digest}
    assert len(found.lost) == 1
    assert found.lost[0].startswith(f"{gone.ref}, a parent of {child.ref}: ")
    assert family(artifacts, ["child:latest"], with_parents=False).manifests == [child]
    for manifest in found.manifests:
        copy(artifacts, other, manifest)
    assert other.lineage(second.ref)["parents"][0]["ref"] == base.ref
    with pytest.raises(NotFound):
        family(artifacts, ["child:latest", "child:absent"], with_parents=False)


def test_an_alias_points_at_one_version(artifacts: ArtifactStore, make: Make) -> None:
    first = artifacts.push("one", make("a", {"a": b"a"}), kind="files")
    second = artifacts.push("one", make("b", {"a": b"b"}), kind="files")
    with pytest.raises(SpecError, match="one:best can't point at two versions"):
        check_aliases([first, second], ["best"])
    with pytest.raises(SpecError, match="alias 'B!' is not valid"):
        check_aliases([first], ["B!"])
    assert check_aliases([first, second], []) == []
    assert check_aliases([first], ["x", "x"]) == ["x"]


def test_a_version_that_is_damaged_there_is_not_taken_for_a_copy(
    artifacts: ArtifactStore, other: ArtifactStore, pushed: Manifest
) -> None:
    copy(artifacts, other, pushed)
    other.store.put(Version.of(pushed).key, b"{}" * 40)
    with pytest.raises(IntegrityError, match="is damaged"):
        copy(artifacts, other, pushed)


def test_a_cache_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BackendError, match="can't write below"), workroom(tmp_path / "file"):
        pass


def test_the_digest_in_the_key_is_that_of_the_bytes(
    artifacts: ArtifactStore, other: ArtifactStore, pushed: Manifest
) -> None:
    copy(artifacts, other, pushed)
    for info in other.store.list("blobs/"):
        assert hashlib.sha256(other.store.get(info.key)).hexdigest() == info.key.rpartition("/")[2]
