"""`tlgan push`, `pull` and `artifact verify` on every backend, with whole, damaged and absent content."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_answers import Tlgan

from cluster.store import ArtifactStore, open_store
from tlgan.manifest import Manifest


def files_below(path: Path) -> dict[str, str]:
    found = (p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def damage(url: str, manifest: Manifest, path: str, data: bytes) -> None:
    """Other bytes under the digest of one file, behind the store's back."""
    sha256 = next(entry.sha256 for entry in manifest.files if entry.path == path)
    open_store(url).put(f"blobs/{sha256[:2]}/{sha256}", data)


def test_what_was_pushed_is_what_is_pulled(tlgan_cli: Tlgan, any_store: str, model_dir: Path, workdir: Path) -> None:
    pushed = tlgan_cli("push", model_dir, "digits32", "--alias", "best")
    assert pushed.code == 0
    ref = pushed.out.strip()
    assert ref == ArtifactStore().resolve("digits32:latest").ref
    pulled = tlgan_cli("pull", "digits32:best", "here/there", "--json")
    assert pulled.code == 0
    assert files_below(workdir / "here" / "there") == files_below(model_dir)
    manifest = ArtifactStore().resolve(ref)
    facts = {"files": len(manifest.files), "bytes": manifest.size}
    assert pulled.data == {"ref": ref, "digest": manifest.digest, "path": str(workdir / "here/there"), **facts}
    checked = tlgan_cli("artifact", "verify", "digits32:best", "--full", "--json")
    assert checked.code == 0
    assert (checked.data["ok"], checked.data["full"], checked.data["problems"]) == (True, True, [])


def test_a_damaged_blob_ends_with_8_and_leaves_nothing(
    tlgan_cli: Tlgan, any_store: str, model_dir: Path, workdir: Path
) -> None:
    tlgan_cli("push", model_dir, "digits32")
    manifest = ArtifactStore().resolve("digits32:latest")
    size = (model_dir / "D" / "b8.safetensors").stat().st_size
    damage(any_store, manifest, "D/b8.safetensors", b"x" * size)
    pulled = tlgan_cli("pull", "digits32:latest", "there")
    assert (pulled.code, pulled.out) == (8, "")
    assert "does not match its digest" in pulled.err
    assert sorted(p.name for p in workdir.iterdir() if p.name != "store") == ["cache"]
    assert tlgan_cli("artifact", "verify", "digits32:latest").code == 0  # sizes alone can't show it
    checked = tlgan_cli("artifact", "verify", "digits32:latest", "--full")
    assert checked.code == 8
    assert checked.out.startswith("D/b8.safetensors: blobs/")
    assert "is damaged: 1 problem" in checked.err


def test_every_missing_and_short_file_is_listed(
    tlgan_cli: Tlgan, store_url: str, published: tuple[Manifest, ...]
) -> None:
    child = published[1]
    damage(store_url, child, "model.json", b"short")
    gone = next(entry.sha256 for entry in child.files if entry.path == "D/b4.safetensors")
    open_store(store_url).delete(f"blobs/{gone[:2]}/{gone}")
    checked = tlgan_cli("artifact", "verify", "digits32:best", "--json")
    assert checked.code == 8
    assert checked.data["ok"] is False
    assert sorted(problem.partition(":")[0] for problem in checked.data["problems"]) == [
        "D/b4.safetensors",
        "model.json",
    ]
    assert checked.error["code"] == "integrity"
    assert "2 problems" in checked.error["message"]


def test_pull_prints_the_path_and_nothing_else(published: tuple[Manifest, ...], workdir: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "pull", "digits32:best"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    path = Path(done.stdout.removesuffix("\n"))
    assert path.is_absolute()
    assert path.is_relative_to(workdir / "cache")
    assert (path / "model.json").is_file()
    assert "pulling digits32@" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (again.stdout, again.stderr) == (done.stdout, "")  # all was there
    quiet = subprocess.run([*command, "-q"], capture_output=True, text=True, check=True, timeout=60)
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_pull_and_artifact_need_no_torch_ray_or_boto3_on_a_directory(published: tuple[Manifest, ...]) -> None:
    code = (
        "import sys; from jobs.cli import main; assert main(['pull', 'digits32:best']) == 0;"
        "assert main(['artifact', 'show', 'digits32:best']) == 0; assert main(['artifact', 'ls']) == 0;"
        "bad = {'torch', 'ray', 'boto3'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)


def test_pulling_to_a_place_again_is_fine_and_to_a_taken_one_refused(
    tlgan_cli: Tlgan, published: tuple[Manifest, ...], workdir: Path
) -> None:
    first = tlgan_cli("pull", "digits32:best", "here")
    assert tlgan_cli("pull", "digits32:best", "here").out == first.out
    other = tlgan_cli("pull", "glyphs32:latest", "here")
    assert (other.code, other.out) == (4, "")
    assert "is not empty" in other.err
    assert files_below(workdir / "here") == {entry.path: entry.sha256 for entry in published[1].files}
    (workdir / "file").write_text("mine")
    assert tlgan_cli("pull", "digits32:best", "file").code == 4
    assert (workdir / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "verb", [("pull",), ("artifact", "show"), ("artifact", "lineage"), ("artifact", "verify"), ("generate",)]
)
def test_references_that_name_nothing(tlgan_cli: Tlgan, published: tuple[Manifest, ...], verb: tuple[str, ...]) -> None:
    bare = tlgan_cli(*verb, "digits32")
    assert (bare.code, bare.out) == (2, "")
    assert "write digits32:latest" in bare.err
    absent = tlgan_cli(*verb, "digit32:best")
    assert (absent.code, absent.out) == (3, "")
    assert 'did you mean "digits32"?' in absent.err
    alias = tlgan_cli(*verb, "digits32:bset", "--json")
    assert (alias.code, alias.out) == (3, "")
    assert set(alias.error) >= {"code", "message", "file", "line", "column", "hint"}
    assert alias.error["code"] == "not_found"
    assert 'did you mean "best"?' in alias.error["message"]
    assert "aliases of digits32: best, latest" in alias.error["hint"]


def test_an_unreachable_bucket_ends_with_5_in_time(tlgan_cli: Tlgan, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TLGAN_S3_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-text")
        start = time.monotonic()
        answer = tlgan_cli("pull", "digits32:best", "there", "--store", "s3://bucket/prefix", "--json")
        assert time.monotonic() - start < 15
    assert (answer.code, answer.out) == (5, "")
    assert answer.error["code"] == "backend"
    assert "can't be reached" in answer.error["message"]
    assert "s3cr3t-text" not in answer.err
    assert not Path("there").exists()


def test_wrong_keys_end_with_5(tlgan_cli: Tlgan, rclone_server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    rclone_server.use(monkeypatch)  # type: ignore[attr-defined]
    bucket = rclone_server.new_bucket()  # type: ignore[attr-defined]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cr3t")
    answer = tlgan_cli("artifact", "ls", "--store", f"s3://{bucket}")
    assert answer.code == 5
    assert "refuses the credentials" in answer.err
    assert "wr0ng-s3cr3t" not in answer.err


def test_push_publishes_a_model_as_one(tlgan_cli: Tlgan, model_dir: Path, store_url: str) -> None:
    pushed = tlgan_cli("push", model_dir, "mine", "--alias", "best", "--alias", "team", "--json").data
    assert (pushed["kind"], pushed["aliases"]) == ("gan", ["latest", "best", "team"])
    assert pushed["uploaded_bytes"] > 0
    manifest = ArtifactStore().resolve("mine:team")
    assert (manifest.digest, manifest.facts) == (pushed["digest"], {"resolution": 32, "channels": 1})
    again = tlgan_cli("push", model_dir, "mine", "--json").data
    assert (again["digest"], again["uploaded_bytes"]) == (pushed["digest"], 0)
    assert len(ArtifactStore().versions("mine")) == 1


def test_push_keeps_the_recipe_beside_a_model(tlgan_cli: Tlgan, published: tuple[Manifest, ...], workdir: Path) -> None:
    tlgan_cli("pull", "digits32:best", "here")
    shown = tlgan_cli("artifact", "show", "digits32:best", "--json").data
    Path("here", "recipe.json").write_text(json.dumps(shown["recipe"]))
    assert tlgan_cli("push", "here", "copy").code == 0
    assert ArtifactStore().resolve("copy:latest").recipe == published[1].recipe
    Path("here", "recipe.json").write_text(json.dumps({**shown["recipe"], "trian": {}}))
    refused = tlgan_cli("push", "here", "other")
    assert refused.code == 2
    assert "recipe.json is no recipe of a gan: trian" in refused.err
    assert "other" not in ArtifactStore().names()


def test_push_of_other_things_is_kind_files(tlgan_cli: Tlgan, model_dir: Path, workdir: Path) -> None:
    Path("notes.txt").write_text("hello")
    assert tlgan_cli("push", "notes.txt", "notes", "--json").data["kind"] == "files"
    assert tlgan_cli("pull", "notes:latest", "back").code == 0
    assert Path("back", "notes.txt").read_text() == "hello"
    Path("broken").mkdir()
    Path("broken", "model.json").write_bytes((model_dir / "model.json").read_bytes())
    pushed = tlgan_cli("push", "broken", "broken", "--json")
    assert pushed.data["kind"] == "files"
    assert "published as plain files" in pushed.err
    forced = tlgan_cli("push", "broken", "forced", "--kind", "gan")
    assert forced.code == 8
    assert "can't be read" in forced.err
    assert ArtifactStore().names() == ["broken", "notes"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere", "x"), 3, "nowhere does not exist"),
        (("file", "Bad/Name"), 2, "not valid"),
        (("file", "x", "--alias", "a b"), 2, "alias 'a b' is not valid"),
        (("file", "x", "--kind", "gan"), 2, "it has no model.json"),
        (("model", "x", "--kind", "classifier"), 2, "is a model of kind gan; expected classifier"),
        (("linked", "x"), 2, "symbolic link"),
    ],
)
def test_mistakes_in_a_push_publish_nothing(
    tlgan_cli: Tlgan, model_dir: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    Path("file").write_text("x")
    Path("linked").mkdir()
    Path("linked", "link").symlink_to("/etc/hostname")
    given = [str(model_dir) if word == "model" else word for word in arguments]
    answer = tlgan_cli("push", *given)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert not Path("store").exists()


def test_a_store_that_is_not_writable(tlgan_cli: Tlgan, workdir: Path) -> None:
    Path("file").write_text("x")
    answer = tlgan_cli("push", "file", "x", "--store", f"file://{workdir}/file/store")
    assert (answer.code, answer.out) == (5, "")
    assert f"{workdir}/file" in answer.err
