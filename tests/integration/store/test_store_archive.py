"""Export and import: the tar is a store, the same artifacts make the same bytes, and nothing odd in a tar is taken in."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.store import ArtifactStore, Version, open_store, unpacking
from cluster.store.archive import OLD_LIMIT, export, header
from cluster.store.copying import family, place
from cluster.store.layout import blob_key, signature_prefix
from cluster.store.unpacking import verified
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import Manifest, Parent

Make = Callable[..., Path]
Members = list[tuple[tarfile.TarInfo, bytes]]
BLOB = 4  # the first one, behind the list, the format and two manifests
FILES = {"a.bin": b"a" * 1000, "b/c.bin": b"c" * 2000, "same.bin": b"a" * 1000, "empty": b"", "block": b"x" * 512}


@pytest.fixture
def directory(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(open_store(str(tmp_path / "directory")), tmp_path / "cache3")


@pytest.fixture
def empty(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(open_store(str(tmp_path / "empty")), tmp_path / "cache2")


def push(artifacts: ArtifactStore, make: Make) -> tuple[Manifest, Manifest]:
    """`child`, and `base` that it was made from."""
    base = artifacts.push("zbase", make("base", FILES), kind="files")
    parents = [Parent(role="init", ref="zbase:latest", digest=base.digest)]
    return base, artifacts.push("child", make("child", FILES | {"new": b"new"}), kind="files", parents=parents)


def take_in(target: ArtifactStore, path: Path) -> list[Manifest]:
    with verified(path) as archive:
        return [unpacking.take_in(target, archive, manifest).manifest for manifest in archive.manifests]


def members(path: Path) -> Members:
    with tarfile.open(path, "r:") as tar:
        return [(member, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar]


def write(path: Path, found: Members) -> Path:
    with tarfile.open(path, "w:", format=tarfile.GNU_FORMAT) as tar:
        for member, data in found:
            tar.addfile(member, io.BytesIO(data))
    return path


def test_out_and_in_again(artifacts: ArtifactStore, empty: ArtifactStore, make: Make, tmp_path: Path) -> None:
    base, child = push(artifacts, make)
    found = family(artifacts, ["child:latest"], with_parents=True)
    told: list[int] = []
    done = export(artifacts.store, found.manifests, tmp_path / "x.tar", told.append)
    data = done.path.read_bytes()
    assert (done.bytes, done.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(told) == 1000 + 2000 + 512 + 3
    with verified(done.path) as archive:
        assert archive.manifests == [base, child]
        assert archive.roots == [child]
    assert take_in(empty, done.path) == [base, child]
    for manifest in (base, child):
        assert empty.verify(manifest.ref, full=True).ok
    assert empty.aliases("child") == {}
    assert sorted(path.name for path in tmp_path.iterdir() if ".part" in path.name) == []


def test_what_is_in_it_is_a_store(artifacts: ArtifactStore, make: Make, tmp_path: Path) -> None:
    _, child = push(artifacts, make)
    export(artifacts.store, [child], tmp_path / "x.tar")
    found = members(tmp_path / "x.tar")
    assert [member.name for member, _ in found[:3]] == ["SHA256SUMS", "FORMAT.json", Version.of(child).key]
    lines = found[0][1].decode().splitlines()
    assert lines == [f"{hashlib.sha256(data).hexdigest()}  {member.name}" for member, data in found[1:]]
    for member, data in found:
        (tmp_path / "out" / member.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / member.name).write_bytes(data)
    unpacked = ArtifactStore(open_store(str(tmp_path / "out")))
    assert unpacked.resolve(child.ref) == child
    assert unpacked.verify(child.ref, full=True).ok


def test_the_same_artifacts_make_the_same_bytes(
    directory: ArtifactStore, empty: ArtifactStore, make: Make, tmp_path: Path
) -> None:
    base, child = push(directory, make)
    export(directory.store, [base, child], tmp_path / "1.tar")
    take_in(empty, tmp_path / "1.tar")
    export(empty.store, [child, base], tmp_path / "2.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_nothing_is_left_of_an_export_that_fails(directory: ArtifactStore, make: Make, tmp_path: Path) -> None:
    base, _ = push(directory, make)
    before = sorted(tmp_path.iterdir())
    big = max(base.files, key=lambda entry: entry.size)
    directory.store.put(blob_key(big), b"x" * big.size)
    with pytest.raises(IntegrityError, match="does not match its digest"):
        export(directory.store, [base], tmp_path / "x.tar")
    directory.store.delete(blob_key(big))
    with pytest.raises(NotFound):
        export(directory.store, [base], tmp_path / "x.tar")
    directory.store.put(blob_key(big), b"short")
    with pytest.raises(IntegrityError):
        export(directory.store, [base], tmp_path / "x.tar")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "x.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict, match="exists already"):
        export(directory.store, [base], tmp_path / "x.tar")
    with pytest.raises(BackendError, match="can't write"):
        export(directory.store, [base], tmp_path / "no" / "x.tar")


def test_sizes_that_a_plain_header_can_not_hold() -> None:
    found = tarfile.TarInfo.frombuf(header("blobs/ab/" + "ab" * 32, OLD_LIMIT + 5), "utf-8", "strict")
    assert (found.size, found.type) == (OLD_LIMIT + 5, tarfile.REGTYPE)
    long = f"versions/{'n' * 100}/20260101T000000000000Z-0123456789abcdef.json"
    assert tarfile.TarInfo.frombuf(header(long, 5), "utf-8", "strict").name == long


@pytest.fixture
def exported(directory: ArtifactStore, make: Make, tmp_path: Path) -> Path:
    base, child = push(directory, make)
    return export(directory.store, [base, child], tmp_path / "good.tar").path


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member


def listing(found: Members, change: Callable[[list[str]], list[str]]) -> Members:
    """With other lines in the list of digests."""
    data = "".join(f"{line}\n" for line in change(found[0][1].decode().splitlines())).encode()
    return [(info("SHA256SUMS", len(data)), data), *found[1:]]


def replaced(found: Members, at: int, member: tarfile.TarInfo, data: bytes = b"") -> Members:
    changed = list(found)
    changed[at] = (member, data)
    return changed


def other_bytes(found: Members) -> Members:
    member, data = found[BLOB]
    return replaced(found, BLOB, member, bytes([data[0] ^ 1]) + data[1:])


def with_a_size(found: Members, at: int, size: int) -> Members:
    """Declares another size than the manifest does; the data are as long as declared."""
    name = found[at][0].name
    return replaced(found, at, info(name, size), b"x" * size)


def as_blob(found: Members) -> Members:
    """An extra blob, in the list too, that no manifest needs."""
    digest = hashlib.sha256(b"extra").hexdigest()
    key = f"blobs/{digest[:2]}/{digest}"
    extra = [(info(key, 5), b"extra")]
    return listing(sorted([*found, *extra], key=lambda pair: rank(pair[0].name)), lambda lines: sorted(
        [*lines, f"{digest}  {key}"], key=lambda line: rank(line[66:])
    ))  # fmt: skip


def rank(name: str) -> tuple[int, str]:
    return ("SFvb".index(name[0]), name)


BAD: dict[str, tuple[Callable[[Members], Members], str]] = {
    "a symbolic link": (lambda m: replaced(m, BLOB, info(m[BLOB][0].name, 0, tarfile.SYMTYPE, "/etc")), "is a symbolic link"),
    "a hard link": (lambda m: replaced(m, BLOB, info(m[BLOB][0].name, 0, tarfile.LNKTYPE, m[5][0].name)), "is a hard link"),
    "a device": (lambda m: replaced(m, BLOB, info(m[BLOB][0].name, 0, tarfile.CHRTYPE)), "is a device"),
    "a directory": (lambda m: [*m[:3], (info("blobs", 0, tarfile.DIRTYPE), b""), *m[3:]], "is a directory"),
    "a pipe": (lambda m: replaced(m, BLOB, info(m[BLOB][0].name, 0, tarfile.FIFOTYPE)), "is a pipe"),
    "a long name": (lambda m: replaced(m, 2, info("x" * 300, 1), b"x"), "an entry of type b'L'"),
    "an absolute path": (lambda m: replaced(m, 2, info("/etc/passwd", 1), b"x"), "stands where versions/"),
    "a path upwards": (lambda m: replaced(m, 2, info("../../x", 1), b"x"), "stands where versions/"),
    "one twice": (lambda m: [*m[:-1], m[-2], m[-1]], "stands where blobs/"),
    "one twice at the end": (lambda m: [*m, m[-1]], "something follows its end"),
    "one missing": (lambda m: m[:-1], "it ends before blobs/"),
    "one too many": (lambda m: [*m, (info("more", 1), b"x")], "something follows its end"),
    "another order": (lambda m: [*m[:-2], m[-1], m[-2]], "stands where blobs/"),
    "no list": (lambda m: m[1:], "stands where SHA256SUMS"),
    "an upward path in the list": (
        lambda m: listing(m, lambda lines: [*lines, f"{'0' * 64}  versions/../x.json"]), "file path 'versions/../x.json'",
    ),
    "an absolute path in the list": (lambda m: listing(m, lambda lines: [*lines, f"{'0' * 64}  /etc/x"]), "has the line"),
    "a doubled line": (lambda m: listing(m, lambda lines: [*lines, lines[-1]]), "names something twice"),
    "lines in disorder": (lambda m: listing(m, lambda lines: lines[::-1]), "names something twice, or not in order"),
    "a blob not listed": (lambda m: listing(m, lambda lines: lines[:-1])[:-1], "needed by a manifest and not in the list"),
    "a blob nobody needs": (as_blob, "in the list and needed by no manifest"),
    "another digest in the list": (
        lambda m: listing(m, lambda lines: [*lines[:-1], "0" * 64 + lines[-1][64:]]), "gives blobs/",
    ),
    "other bytes": (other_bytes, "does not match its digest"),
    "a huge blob": (lambda m: with_a_size(m, BLOB, 5_000_000), "is said to have 5000000 bytes"),
    "a small blob": (lambda m: with_a_size(m, BLOB, 0), "is said to have 0 bytes"),
    "a huge manifest": (lambda m: with_a_size(m, 2, 9 << 20), "at most 8388608 are expected there"),
    "another manifest": (lambda m: replaced(m, 2, info(m[2][0].name, 2), b"{}"), "does not match its digest"),
    "another format": (lambda m: replaced(m, 1, info("FORMAT.json", 2), b"{}"), "FORMAT.json is b'{}'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_should_not_be_there_is_refused(exported: Path, empty: ArtifactStore, tmp_path: Path, what: str) -> None:
    change, said = BAD[what]
    bad = write(tmp_path / "bad.tar", change(members(exported)))
    with pytest.raises((IntegrityError, SpecError), match=r".") as caught:
        take_in(empty, bad)
    assert said in caught.value.message
    assert not (tmp_path / "empty").exists()


def test_a_tar_that_others_wrote_over_is_fine(exported: Path, empty: ArtifactStore, tmp_path: Path) -> None:
    """Times, owners and a record's padding say nothing about the content."""
    found = members(exported)
    for member, _ in found:
        member.mtime, member.uid, member.uname, member.mode = 1_700_000_000, 1000, "somebody", 0o600
    assert len(take_in(empty, write(tmp_path / "again.tar", found))) == 2


def test_signatures_go_along(directory: ArtifactStore, empty: ArtifactStore, make: Make, tmp_path: Path) -> None:
    base, child = push(directory, make)
    names = [f"{signature_prefix(Version.of(one))}{'ab' * 8}.sig" for one in (base, child)]
    for name in names:
        directory.store.put(name, name.encode())
    export(directory.store, [base, child], tmp_path / "x.tar")
    take_in(empty, tmp_path / "x.tar")
    assert {info.key: empty.store.get(info.key) for info in empty.store.list("signatures/")} == {
        name: name.encode() for name in names
    }
    found = members(tmp_path / "x.tar")
    at = next(i for i, (member, _) in enumerate(found) if member.name == names[0])
    large = replaced(found, at, info(names[0], 5000), b"x" * 5000)
    with pytest.raises(IntegrityError, match="at most 4096"):
        take_in(empty, write(tmp_path / "large.tar", large))
    other = replaced(found, at, info(names[0], 1), b"x")
    with pytest.raises(IntegrityError, match="does not match its digest"):
        take_in(empty, write(tmp_path / "other.tar", other))
    stray = f"signatures/zzz/{Version.of(base).id}.x.sig"
    moved = listing(replaced(found, at, info(stray, len(names[0])), names[0].encode()), lambda lines: [
        line.replace(names[0], stray) for line in lines
    ])  # fmt: skip
    with pytest.raises(IntegrityError, match="the signature of a version that is not in the list"):
        take_in(empty, write(tmp_path / "stray.tar", moved))


@pytest.mark.parametrize("left", [0, 100, 512, 700, 5000, -1024, -1])
def test_a_tar_that_is_cut_off(exported: Path, empty: ArtifactStore, tmp_path: Path, left: int) -> None:
    data = exported.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:left])
    with pytest.raises(IntegrityError, match="is not imported"):
        take_in(empty, tmp_path / "cut.tar")
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("more", [b"x", b"\0" * 20_000, b"\0" * 511 + b"x"])
def test_a_tar_that_goes_on_after_its_end(exported: Path, empty: ArtifactStore, tmp_path: Path, more: bytes) -> None:
    (tmp_path / "more.tar").write_bytes(exported.read_bytes() + more)
    with pytest.raises(IntegrityError, match="something follows its end"):
        take_in(empty, tmp_path / "more.tar")


def test_bytes_between_two_members(exported: Path, tmp_path: Path) -> None:
    data = bytearray(exported.read_bytes())
    size = len(members(exported)[0][1])
    assert data[512 + size] == 0
    data[512 + size] = 1
    (tmp_path / "between.tar").write_bytes(data)
    with pytest.raises(IntegrityError, match="something between two members"), verified(tmp_path / "between.tar"):
        pass


def test_what_is_no_file(empty: ArtifactStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, error in (("absent", NotFound), ("pipe", SpecError), (".", SpecError)):
        with pytest.raises(error):
            take_in(empty, tmp_path / name)
    (tmp_path / "text").write_text("hello" * 1000)
    with pytest.raises(IntegrityError, match="no tar header where SHA256SUMS is due"):
        take_in(empty, tmp_path / "text")


def test_a_file_that_changes_between_the_check_and_the_import(exported: Path, empty: ArtifactStore) -> None:
    with verified(exported) as archive:
        data = bytearray(exported.read_bytes())
        for offset in archive.places.values():
            data[offset] ^= 1
        exported.write_bytes(data)
        with pytest.raises(IntegrityError, match="does not match its digest"):
            place(empty, archive.manifests[0], archive.fetch)
    assert empty.names() == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place_=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_or_harmless(exported: Path, tmp_path: Path, place_: float, bit: int) -> None:
    data = bytearray(exported.read_bytes())
    at = min(int(place_ * len(data)), len(data) - 1)
    data[at] ^= 1 << bit
    bad = tmp_path / "flipped.tar"
    bad.write_bytes(data)
    with verified(exported) as archive:
        good = archive.manifests
    with contextlib.suppress(IntegrityError, SpecError), verified(bad) as archive:
        assert archive.manifests == good  # a blank for a zero in a header's own sum, say
