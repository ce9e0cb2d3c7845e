"""A store that lies, a person who swaps folders meanwhile: all of it is refused, and nothing lands where it should not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.store import ArtifactStore, Version, open_store
from cluster.store import writing as store_writing
from cluster.store.catalog import list_names
from tlgan.canonical import canonical_json
from tlgan.errors import Conflict, IntegrityError, SpecError, TlganError
from tlgan.manifest import MAX_MANIFEST_BYTES, MAX_NESTING, FileEntry, Manifest, Parent

FILES = {"G/b4.txt": b"G" * 1000, "note.txt": b"hello"}


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    folder = tmp_path / "model"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    found = ArtifactStore(open_store(str(tmp_path / "store")), tmp_path / "cache")
    found.push("digits32", folder, kind="files")
    return found


def plant(artifacts: ArtifactStore, data: bytes, name: str = "digits32") -> None:
    """Puts `data` where a manifest goes, under its true digest, and points `latest` at it: all an intruder can do."""
    digest = hashlib.sha256(data).hexdigest()
    identity = f"20990101T000000000000Z-{digest[:16]}"
    artifacts.store.put(f"versions/{name}/{identity}.json", data)
    record = {"name": name, "alias": "latest", "op": "0", "moved": "x", "digest": digest, "version": identity}
    artifacts.store.put(f"aliases/{name}/latest.json", canonical_json(record))


def changed(artifacts: ArtifactStore, change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(artifacts.resolve("digits32:latest").to_json())
    value["created"] = "2099-01-01T00:00:00.000000Z"
    change(value)
    return canonical_json(value)


def everything_below(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*")}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


TRICKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "out of the folder": lambda m: m["files"][0].update(path="../../escaped"),
    "from the root": lambda m: m["files"][0].update(path="/tmp/escaped"),
    "of a drive": lambda m: m["files"][0].update(path="C:\\escaped"),
    "encoded": lambda m: m["files"][0].update(path="%2e%2e/escaped"),
    "a device": lambda m: m["files"][0].update(path="nul.txt"),
    "same but for case": lambda m: m["files"].append({**m["files"][0], "path": "g/B4.TXT"}),
    "twice": lambda m: m["files"].append(m["files"][0]),
    "file and folder": lambda m: m["files"].append({**m["files"][0], "path": "note.txt/x"}),
    "another name": lambda m: m.update(name="other"),
    "a bad name": lambda m: m.update(name="../x"),
    "negative size": lambda m: m["files"][0].update(size=-1),
    "giant size": lambda m: m["files"][0].update(size=1 << 60),
    "size as text": lambda m: m["files"][0].update(size="1000"),
    "one content, two sizes": lambda m: m["files"].append({**m["files"][0], "path": "z", "size": 7}),
    "a short digest": lambda m: m["files"][0].update(sha256="ab"),
    "a digest with a path": lambda m: m["files"][0].update(sha256="../" + "a" * 61),
    "a nonce with a path": lambda m: m["files"][0].update(nonce="../../aliases"),
    "too many files": lambda m: m.update(
        files=[{"path": f"f{i}", "size": 1000, "sha256": m["files"][0]["sha256"]} for i in range(20_001)]
    ),
    "too many parents": lambda m: m.update(parents=[{"ref": "a:b", "digest": "0" * 64, "role": "x"}] * 1001),
    "a parent that is no reference": lambda m: m.update(parents=[{"ref": "../x:y", "digest": "0" * 64}]),
    "too deep": lambda m: m["facts"].update(x=nested(MAX_NESTING + 1)),
    "far too deep": lambda m: m["facts"].update(x=nested(900)),
    "another format": lambda m: m.update(format=2),
    "format as a list": lambda m: m.update(format=[1]),
    "no files": lambda m: m.update(files=None),
    "kind with a newline": lambda m: m.update(kind="gan\n"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_manifests_with_tricks_are_refused(artifacts: ArtifactStore, tmp_path: Path, trick: str) -> None:
    plant(artifacts, changed(artifacts, TRICKS[trick]))
    before = everything_below(tmp_path)
    for dest in (None, tmp_path / "dest"):
        with pytest.raises(IntegrityError):
            artifacts.pull("digits32:latest", dest)
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize(
    "data",
    [
        b" " * (MAX_MANIFEST_BYTES + 1),
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"1" * 10_000,
        b'{"a":1e999999}',
        b'"\\ud800"',
        b"\x80\x04\x95.",
        b"\x1f\x8b\x08\x00",
        b"",
        b"null",
        b"\xef\xbb\xbf{}",
        "{\"format\":1}".encode("utf-16"),
    ],
    ids=range(12),
)  # fmt: skip
def test_bytes_that_are_no_manifest_are_refused(artifacts: ArtifactStore, data: bytes) -> None:
    plant(artifacts, data)
    with pytest.raises(TlganError) as error:
        artifacts.pull("digits32:latest")
    assert error.value.exit_code in (3, 8)  # 3: too short to be listed
    assert len(str(error.value)) < 2000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_of_a_manifest_under_its_true_digest(artifacts: ArtifactStore, data: st.DataObject) -> None:
    """Valid digest, odd content: it is refused as a whole, or it pulls as what it says."""
    good = changed(artifacts, lambda m: None)
    at = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.integers(0, 12))
    odd = good[:at] + data.draw(st.binary(max_size=12)) + good[at + cut :]
    try:
        manifest = Manifest.from_json(odd, hashlib.sha256(odd).hexdigest())
    except IntegrityError:
        return
    assert manifest.to_json() == odd


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    )
)
def test_any_json_is_refused_or_is_a_manifest(value: Any) -> None:
    data = json.dumps(value).encode()
    with pytest.raises(IntegrityError):
        Manifest.from_json(data, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "key",
    [
        "versions/digits32/20990101T000000000000Z-0123456789abcdef.json",
        "versions/\x1b[2Jx/20990101T000000000000Z-0123456789abcdef.json",
        "versions/UPPER/20990101T000000000000Z-0123456789abcdef.json",
        "versions/a b/20990101T000000000000Z-0123456789abcdef.json",
    ],
)
def test_odd_names_in_a_store_are_not_listed(artifacts: ArtifactStore, tmp_path: Path, key: str) -> None:
    path = tmp_path / "store" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100)
    assert list_names(artifacts.store) == ["digits32"]


def test_an_alias_of_another_artifact_is_refused(artifacts: ArtifactStore) -> None:
    record = artifacts.store.get("aliases/digits32/latest.json")
    artifacts.store.put("aliases/other/latest.json", record)
    artifacts.store.put("aliases/digits32/best.json", record)
    for ref in ("other:latest", "digits32:best"):
        with pytest.raises(IntegrityError, match="is the record of digits32:latest"):
            artifacts.resolve(ref)


def test_a_manifest_of_another_artifact_is_refused(artifacts: ArtifactStore) -> None:
    manifest = artifacts.resolve("digits32:latest")
    place = Version.of(manifest)
    artifacts.store.put(f"versions/other/{place.id}.json", manifest.to_json())
    with pytest.raises(IntegrityError, match="is the manifest of versions/digits32/"):
        artifacts.resolve(f"other@{manifest.digest[:16]}")


def test_a_longer_blob_than_said_is_not_swallowed(artifacts: ArtifactStore, tmp_path: Path) -> None:
    entry = artifacts.resolve("digits32:latest").files[1]
    artifacts.store.put(f"blobs/{entry.sha256[:2]}/{entry.sha256}", b"x" * 50_000_000)
    with pytest.raises(IntegrityError, match="50000000"):
        artifacts.pull("digits32:latest", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_limits_hold_on_the_way_in_too() -> None:
    entry = FileEntry(path="a", size=1, sha256="ab" * 32)
    with pytest.raises(SpecError, match="nested deeper"):
        Manifest.create("x", [entry], kind="files", facts={"x": nested(MAX_NESTING + 1)})
    parents = [Parent(ref="a:b", digest="0" * 64)] * 1001
    with pytest.raises(SpecError, match="parents"):
        Manifest.create("x", [entry], kind="files", parents=parents)
    assert Manifest.create("x", [entry], kind="files", facts={"x": nested(MAX_NESTING - 2)})


# Links: none is followed, whoever puts it there and when.


def test_a_destination_that_is_a_link_is_refused(artifacts: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    for target in ("victim", "nowhere"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(Conflict, match="is a symbolic link"):
            artifacts.pull("digits32:latest", link)
    assert everything_below(tmp_path / "victim") == set()
    assert not (tmp_path / "nowhere").exists()


def test_a_destination_with_links_is_not_taken_for_the_artifact(artifacts: ArtifactStore, tmp_path: Path) -> None:
    dest = artifacts.pull("digits32:latest", tmp_path / "dest")
    (tmp_path / "copy").write_bytes(FILES["note.txt"])
    (dest / "note.txt").unlink()
    (dest / "note.txt").symlink_to(tmp_path / "copy")
    with pytest.raises(Conflict):
        artifacts.pull("digits32:latest", dest)
    (dest / "note.txt").unlink()
    (dest / "note.txt").write_bytes(FILES["note.txt"])
    assert artifacts.pull("digits32:latest", dest) == dest
    (dest / "etc").symlink_to("/etc")
    with pytest.raises(Conflict):
        artifacts.pull("digits32:latest", dest)


@pytest.fixture
def swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`swap(where)`: as the first file was written, that folder becomes a link to the returned one."""

    def prepare(where: str) -> Path:
        victim = tmp_path / "victim"
        victim.mkdir()
        create, done = store_writing.NewFolder.create, []

        def attack(folder: store_writing.NewFolder, path: str) -> Any:
            result = create(folder, path)
            if not done:
                done.append(path)
                parts = {"parent": folder.dest.parent, "root": folder._temporary, "inside": folder._temporary / "G"}
                parts[where].rename(tmp_path / "moved")
                parts[where].symlink_to(victim)
            return result

        monkeypatch.setattr(store_writing.NewFolder, "create", attack)
        return victim

    return prepare


@pytest.mark.parametrize("where", ["parent", "root", "inside"])
def test_a_folder_swapped_for_a_link_meanwhile(
    artifacts: ArtifactStore, tmp_path: Path, swap: Callable[[str], Path], where: str
) -> None:
    more = tmp_path / "model" / "G" / "b8.txt"
    more.write_bytes(b"8" * 100)
    artifacts.push("digits32", tmp_path / "model", kind="files")
    victim = swap(where)
    with pytest.raises(TlganError) as error:
        artifacts.pull("digits32:latest", tmp_path / "parent" / "dest")
    assert error.value.exit_code in (4, 5)
    assert everything_below(victim) == set()


def test_a_destination_made_meanwhile_is_not_written_over(
    artifacts: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appear = store_writing.NewFolder.appear
    kinds: list[Callable[[Path], Any]] = [
        lambda dest: dest.write_text("mine"),
        lambda dest: dest.symlink_to(tmp_path / "victim"),
        lambda dest: (dest.mkdir(), (dest / "mine").write_text("mine")),
    ]
    (tmp_path / "victim").mkdir()
    for number, make in enumerate(kinds):

        def late(folder: store_writing.NewFolder, make: Callable[[Path], Any] = make) -> None:
            make(folder.dest)
            appear(folder)

        monkeypatch.setattr(store_writing.NewFolder, "appear", late)
        dest = tmp_path / "there" / str(number)
        with pytest.raises(Conflict, match="somebody else meanwhile"):
            artifacts.pull("digits32:latest", dest)
        assert {p.name for p in dest.parent.iterdir()} == {str(n) for n in range(number + 1)}
    assert everything_below(tmp_path / "victim") == set()


def test_without_descriptors_it_works_too(
    artifacts: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(store_writing, "_BY_DESCRIPTOR", False)
    dest = artifacts.pull("digits32:latest", tmp_path / "new" / "dest")
    assert {p: (dest / p).read_bytes() for p in FILES} == FILES
    assert list(dest.parent.iterdir()) == [dest]


def test_pushing_follows_no_link(artifacts: ArtifactStore, tmp_path: Path) -> None:
    for number, target in enumerate([tmp_path / "model" / "note.txt", Path("/etc"), tmp_path / "none", Path("..")]):
        folder = tmp_path / f"push{number}"
        folder.mkdir()
        (folder / "real.txt").write_text("real")
        os.symlink(target, folder / "link")
        with pytest.raises(SpecError, match="symbolic link"):
            artifacts.push("other", folder, kind="files")
    assert artifacts.names() == ["digits32"]


def test_a_percent_sign_in_a_place_is_decoded_once(tmp_path: Path) -> None:
    """In the folder of a store; in names and keys there is none."""
    odd = tmp_path / "a%2541%2e" / "store"
    store = open_store(odd.as_uri())
    assert open_store(store.url).url == store.url
    (tmp_path / "x").write_bytes(b"x")
    ArtifactStore(store.url, tmp_path / "cache").push("one", tmp_path / "x", kind="files")
    assert (odd / "FORMAT.json").is_file()
    for url in ("s3://bucket/%2e%2e/x", "s3://bucket/a%2Fb", "s3://bucket/../x", "s3://%62ucket/x"):
        with pytest.raises(SpecError):
            open_store(url)
