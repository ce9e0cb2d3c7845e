"""`tlgan artifact copy`, `export`, `import` and `share` as a person uses them, and misuses them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.request import urlopen

import pytest
from cli_answers import Tlgan
from servers import KEY, SECRET, S3Server

from cluster.store import ArtifactStore, open_store
from cluster.store.layout import blob_key
from cluster.store.pieces import Rule
from cluster.store.s3 import S3Store
from tlgan.manifest import Manifest

Published = tuple[Manifest, Manifest]


def test_copy_to_an_empty_store(tlgan_cli: Tlgan, published: Published) -> None:
    parent, child = published
    answer = tlgan_cli("artifact", "copy", "digits32:best", "copy", "-v")
    assert (answer.code, answer.out) == (0, f"{child.ref}\n")
    assert "copying 1 artifact to file://" in answer.err
    other = ArtifactStore(open_store("copy"))
    assert (other.names(), other.aliases("digits32")) == (["digits32"], {})
    rows = tlgan_cli("artifact", "copy", "digits32:best", "copy", "--with-parents", "--alias", "best", "--json").data
    assert [(row["ref"], row["asked"], row["aliases"]) for row in rows] == [
        (parent.ref, False, []),
        (child.ref, True, ["best"]),
    ]
    assert (rows[1]["uploaded_bytes"], rows[1]["same_digest"], rows[1]["source"]) == (0, True, child.ref)
    assert (other.aliases("glyphs32"), list(other.aliases("digits32"))) == ({}, ["best"])
    assert tlgan_cli("artifact", "verify", "--all", "--full", "--store", "copy").code == 0


def test_copy_between_servers(
    tlgan_cli: Tlgan,
    published: Published,
    moto_server: S3Server,
    rclone_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moto_server.use(monkeypatch)
    first, second = f"s3://{moto_server.new_bucket()}/a", f"s3://{rclone_server.new_bucket()}/b"
    assert tlgan_cli("artifact", "copy", "digits32:best", first, "--alias", "latest").code == 0
    to_rclone = ("--to-endpoint", rclone_server.endpoint)
    answer = tlgan_cli("artifact", "copy", "digits32:latest", second, *to_rclone, "--alias", "latest", "--store", first)
    assert (answer.code, answer.out) == (0, f"{published[1].ref}\n")
    assert "single-writer mode" in answer.err
    rclone_server.use(monkeypatch)
    assert tlgan_cli("artifact", "verify", "digits32:latest", "--full", "--store", second).code == 0
    mended = ("artifact", "verify", "digits32:latest", "--repair", first, "--repair-endpoint", moto_server.endpoint)
    open_store(second).delete(blob_key(published[1].files[0]))
    assert tlgan_cli(*mended, "--store", second).code == 0


def test_each_store_with_a_key_of_its_own(
    tlgan_cli: Tlgan, published: Published, rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = (f"s3://{rclone_server.new_bucket()}", "--to-endpoint", rclone_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    Path("keys").write_text(f"[far]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "keys")
    refused = tlgan_cli("artifact", "copy", "digits32:best", *to)
    assert refused.code == 5
    assert "refuses the credentials" in refused.err
    assert tlgan_cli("artifact", "copy", "digits32:best", *to, "--to-profile", "far").code == 0
    open_store().delete(blob_key(published[1].files[0]))
    mend = ("--repair", to[0], "--repair-endpoint", to[2], "--repair-profile")
    assert tlgan_cli("artifact", "verify", "digits32:best", *mend, "far").code == 0
    unknown = tlgan_cli("artifact", "verify", "digits32:best", *mend, "near")
    assert unknown.code == 5
    assert "near" in unknown.err


def test_what_arrived_is_said_when_the_rest_can_not(tlgan_cli: Tlgan, published: Published) -> None:
    parent, child = published
    own = next(entry for entry in child.files if entry.sha256 not in {one.sha256 for one in parent.files})
    open_store().put(blob_key(own), b"x" * own.size)
    answer = tlgan_cli("artifact", "copy", "digits32:best", "copy", "--with-parents")
    assert (answer.code, answer.out) == (8, "")
    assert f"1 of 2 artifacts arrived:\n  {parent.ref}\n" in answer.err
    assert ArtifactStore(open_store("copy")).names() == ["glyphs32"]


def test_a_deleted_parent_is_left_out_and_said(tlgan_cli: Tlgan, published: Published) -> None:
    parent, child = published
    for path in Path("store/versions/glyphs32").iterdir():
        path.unlink()
    answer = tlgan_cli("artifact", "copy", "digits32:best", "copy", "--with-parents")
    assert (answer.code, answer.out) == (0, f"{child.ref}\n")
    assert f"warning: left out: {parent.ref}, a parent of {child.ref}" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("digits32:best",), 2, "Missing argument 'REF'"),
        (("digits32:best", "glyphs32:latest"), 2, "expected the store to copy to as the last word"),
        (("digits32:best", "store"), 2, "is the store itself"),
        (("digits32:bset", "copy"), 3, 'did you mean "best"?'),
        (("digits32", "copy"), 2, "write digits32:latest"),
        (("digits32:best", "copy", "--alias", "B!"), 2, "not valid"),
        (("digits32:best", "ftp://x/y"), 2, "is no store that tlgan knows"),
        (("digits32:best", "s3://b/c", "--to-endpoint", "http://u:s3cr3t@x"), 2, "has a user or a password in it"),
        (("digits32:best", "s3://b/c", "--to-endpoint", "x"), 2, "expected http(s)://host[:port]"),
    ],
)
def test_mistakes_in_a_copy(
    tlgan_cli: Tlgan, published: Published, arguments: tuple[str, ...], code: int, said: str
) -> None:
    answer = tlgan_cli("artifact", "copy", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "s3cr3t" not in answer.err
    assert not Path("copy").exists()


def test_through_a_file(tlgan_cli: Tlgan, published: Published, workdir: Path) -> None:
    parent, child = published
    answer = tlgan_cli("artifact", "export", "digits32:best", "gap.tar", "--with-parents")
    assert (answer.code, answer.out) == (0, f"{workdir}/gap.tar\n")
    assert f"sha256 {hashlib.sha256(Path('gap.tar').read_bytes()).hexdigest()}" in answer.err
    again = tlgan_cli("artifact", "export", "digits32:best", "again.tar", "--with-parents", "--json").data
    assert Path("again.tar").read_bytes() == Path("gap.tar").read_bytes()
    assert again["bytes"] == Path("gap.tar").stat().st_size
    assert [(row["ref"], row["asked"]) for row in again["artifacts"]] == [(parent.ref, False), (child.ref, True)]
    far = ("--store", "far")
    taken = tlgan_cli("artifact", "import", "gap.tar", "--alias", "best", *far)
    assert (taken.code, taken.out) == (0, f"{parent.ref}\n{child.ref}\n")
    other = ArtifactStore(open_store("far"))
    assert (other.aliases("glyphs32"), list(other.aliases("digits32"))) == ({}, ["best"])
    assert tlgan_cli("artifact", "verify", "--all", "--full", *far).code == 0
    rows = tlgan_cli("artifact", "import", "gap.tar", *far, "--json").data
    assert [row["uploaded_bytes"] for row in rows] == [0, 0]


def test_a_damaged_file_publishes_nothing(tlgan_cli: Tlgan, published: Published) -> None:
    tlgan_cli("artifact", "export", "digits32:best", "gap.tar")
    data = bytearray(Path("gap.tar").read_bytes())
    data[-20_000] ^= 1
    Path("gap.tar").write_bytes(data)
    answer = tlgan_cli("artifact", "import", "gap.tar", "--store", "far", "--json")
    assert (answer.code, answer.out, answer.error["code"]) == (8, "", "integrity")
    assert not Path("far").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("export", "digits32:best", "x.zip"), 2, "does not end with .tar"),
        (("export", "digits32:best", "taken.tar"), 4, "exists already"),
        (("export", "digits32:best", "absent/x.tar"), 5, "can't write absent/x.tar"),
        (("export", "digits32:bset", "x.tar"), 3, 'did you mean "best"?'),
        (("import", "absent.tar"), 3, "absent.tar does not exist"),
        (("import", "."), 2, "is no file"),
        (("import", "taken.tar"), 8, "no tar header"),
        (("share", "digits32:best"), 2, "is a directory"),
        (("share", "digits32:best", "--expires", "8d"), 2, "seven days"),
        (("share", "digits32:best", "--expires", "soon"), 2, "no length of time"),
    ],
)
def test_mistakes(tlgan_cli: Tlgan, published: Published, arguments: tuple[str, ...], code: int, said: str) -> None:
    Path("taken.tar").write_text("mine" * 200)
    before = sorted(path.name for path in Path().iterdir())
    answer = tlgan_cli("artifact", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert sorted(path.name for path in Path().iterdir() if path.name != "cache") == before
    assert Path("taken.tar").read_text() == "mine" * 200


def test_share(
    tlgan_cli: Tlgan,
    published: Published,
    moto_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    moto_server.use(monkeypatch)
    bucket = ("--store", f"s3://{moto_server.new_bucket()}")
    tlgan_cli("artifact", "copy", "digits32:best", bucket[1], "--alias", "best")
    one = tlgan_cli("artifact", "share", "digits32:best", "--path", "model.json", *bucket)
    assert one.code == 0
    assert one.out.startswith(moto_server.endpoint)
    assert len(one.out.splitlines()) == 1
    assert f"access key {KEY}" in one.err
    assert "rotating" in one.err
    every = tlgan_cli("artifact", "share", "digits32:best", "--expires", "15min", "-v", *bucket)
    assert [line.partition("\t")[0] for line in every.out.splitlines()] == [entry.path for entry in published[1].files]
    data = tlgan_cli("artifact", "share", "digits32:best", *bucket, "--json").data
    assert data["access_key"] == KEY
    assert {row["path"]: row["sha256"] for row in data["files"]} == {e.path: e.sha256 for e in published[1].files}
    assert "Signature" not in one.err + every.err + caplog.text
    assert SECRET not in one.out + every.out
    near = tlgan_cli("artifact", "share", "digits32:best", "--path", "modle.json", *bucket)
    assert near.code == 3
    assert 'did you mean "model.json"?' in near.err


def test_share_of_a_file_in_pieces(
    tlgan_cli: Tlgan, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moto_server.use(monkeypatch)
    monkeypatch.setattr(S3Store, "pieces", Rule(start=5_000, size=2_000))
    monkeypatch.chdir(tmp_path)
    bucket = ("--store", f"s3://{moto_server.new_bucket()}")
    Path("big.txt").write_text("".join(f"line {number}\n" for number in range(600)))
    assert tlgan_cli("push", "big.txt", "big", *bucket).code == 0
    shared = tlgan_cli("artifact", "share", "big:latest", *bucket)
    pieces = [urlopen(url).read().decode() for url in shared.out.splitlines()]
    assert len(pieces) == 3
    assert "".join(pieces) == Path("big.txt").read_text()
    assert "big.txt lies in 3 pieces: download all of its URLs in their order" in shared.err
    (row,) = tlgan_cli("artifact", "share", "big:latest", *bucket, "--json").data["files"]
    assert "url" not in row
    assert len(row["urls"]) == 3
