"""Signatures: what the key's owner did not vouch for is not handed out, whatever somebody wrote into the store."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, open_store, signing, trash
from cluster.store.copying import copy
from cluster.store.gc import Collector
from cluster.store.layout import Version, signature_prefix
from cluster.store.retention import Policy
from jobs.cli import main
from tlgan.errors import IntegrityError, SpecError
from tlgan.manifest import Manifest

openssl = shutil.which("openssl")


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key, as the documentation says to make them."""
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    if openssl:
        subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
        subprocess.run([openssl, "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
        return private, public
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem, plain = form.Encoding.PEM, form.NoEncryption()
    private.write_bytes(key.private_bytes(pem, form.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_key(tmp_path, "mine")


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    (tmp_path / "note.txt").write_bytes(b"hello")
    return ArtifactStore(open_store(str(tmp_path / "store")), tmp_path / "cache")


def push(artifacts: ArtifactStore, tmp_path: Path, text: str = "hello", **options: object) -> Manifest:
    (tmp_path / "note.txt").write_text(text)
    return artifacts.push("notes", tmp_path / "note.txt", kind="files", **options)  # type: ignore[arg-type]


def signature_of(artifacts: ArtifactStore, manifest: Manifest) -> str:
    (found,) = artifacts.store.list(signature_prefix(Version.of(manifest)))
    return found.key


def test_what_is_signed_is_pulled(artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    manifest = push(artifacts, tmp_path, sign_key=keys[0])
    path = artifacts.pull("notes:latest", tmp_path / "dest", verify_key=keys[1])
    assert (path / "note.txt").read_text() == "hello"
    key = signature_of(artifacts, manifest)
    first = artifacts.store.get(key)
    signing.sign(artifacts.store, manifest, keys[0])
    assert artifacts.store.get(key) == first
    assert key.startswith("signatures/notes/")


def test_what_is_not_signed_is_refused_and_nothing_is_left(
    artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    manifest = push(artifacts, tmp_path)
    with pytest.raises(IntegrityError, match=r"is not signed by the key .* it has no signature") as error:
        artifacts.pull("notes:latest", tmp_path / "dest", verify_key=keys[1])
    assert "artifact sign" in str(error.value.hint)
    other = make_key(tmp_path, "other")
    used = signing.sign(artifacts.store, manifest, other[0])
    with pytest.raises(IntegrityError, match=f"it is signed by {used}"):
        artifacts.pull("notes:latest", tmp_path / "dest", verify_key=keys[1])
    assert not (tmp_path / "dest").exists()
    assert artifacts.stats.downloaded == 0


def test_one_of_several_keys_is_enough(artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    other = make_key(tmp_path, "other")
    push(artifacts, tmp_path, sign_key=keys[0])
    both = tmp_path / "both.pem"
    both.write_bytes(other[1].read_bytes() + b"\n" + keys[1].read_bytes())
    assert artifacts.pull("notes:latest", verify_key=both)


def test_tampering_is_found(artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    good = push(artifacts, tmp_path, sign_key=keys[0])
    evil = push(artifacts, tmp_path, "evil")
    place = signature_prefix(Version.of(evil)) + signature_of(artifacts, good).rpartition(".sig")[0].rpartition(".")[2]
    record = json.loads(artifacts.store.get(signature_of(artifacts, good)))
    forged = [
        record,  # another version's
        {**record, "digest": evil.digest},
        {**record, "digest": evil.digest, "signature": "0" * 128},
        {**record, "signature": "0" * 127},
        {**record, "algorithm": "none"},
        {**record, "format": 2},
        [],
    ]
    for value in forged:
        artifacts.store.put(f"{place}.sig", json.dumps(value).encode())
        with pytest.raises(IntegrityError, match=r"is not genuine|can't be read"):
            artifacts.pull("notes:latest", verify_key=keys[1])
    for data in (b"", b"x" * 100_000, b"\x80\x04."):
        artifacts.store.put(f"{place}.sig", data)
        with pytest.raises(IntegrityError):
            artifacts.pull("notes:latest", verify_key=keys[1])
    assert artifacts.pull(good.ref, verify_key=keys[1])


def test_a_signature_counts_for_one_name_only(
    artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    mine = push(artifacts, tmp_path, sign_key=keys[0])
    other = artifacts.push("other", tmp_path / "note.txt", kind="files")
    moved = artifacts.store.get(signature_of(artifacts, mine))
    name = signature_of(artifacts, mine).rpartition(".sig")[0].rpartition(".")[2]
    artifacts.store.put(f"{signature_prefix(Version.of(other))}{name}.sig", moved)
    with pytest.raises(IntegrityError, match="not genuine"):
        artifacts.pull("other:latest", verify_key=keys[1])


def test_the_environment_makes_it_a_duty(
    artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(artifacts, tmp_path)
    artifacts.pull("notes:latest")
    monkeypatch.setenv("TLGAN_VERIFY_KEY", str(keys[1]))
    with pytest.raises(IntegrityError, match="is not signed"):
        artifacts.pull("notes:latest")  # though it lies in the cache
    monkeypatch.setenv("TLGAN_SIGN_KEY", str(keys[0]))
    push(artifacts, tmp_path)
    assert artifacts.pull("notes:latest")
    entries = artifacts.stage({"a.txt": tmp_path / "note.txt"}, pin="draft")
    draft = Manifest.create("draft", entries, kind="files")
    assert artifacts.pull(draft, published=False)
    artifacts.commit(draft)
    assert artifacts.pull("draft:latest")
    monkeypatch.setenv("TLGAN_VERIFY_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(SpecError, match="can't read the key"):
        artifacts.pull("notes:latest")


def test_keys_of_another_kind(artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    odd = tmp_path / "odd.pem"
    for text in ("", "-----BEGIN PRIVATE KEY-----\nTOPSECRET\n-----END PRIVATE KEY-----\n", "ssh-ed25519 AAAA"):
        odd.write_text(text)
        with pytest.raises(SpecError, match="no private key") as error:
            push(artifacts, tmp_path, sign_key=odd)
        assert "TOPSECRET" not in f"{error.value} {error.value.hint} {error.value.__cause__}"
    assert list(artifacts.store.list("versions/")) == []
    push(artifacts, tmp_path, sign_key=keys[0])
    with pytest.raises(SpecError, match="is a private key; expected the public one"):
        artifacts.pull("notes:latest", verify_key=keys[0])
    with pytest.raises(SpecError, match="no private key"):
        push(artifacts, tmp_path, sign_key=keys[1])
    if openssl:
        subprocess.run(
            [openssl, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", odd],
            check=True, capture_output=True,
        )  # fmt: skip
        with pytest.raises(SpecError, match="of another kind; expected Ed25519"):
            push(artifacts, tmp_path, sign_key=odd)


def test_signatures_live_as_long_as_their_version(
    artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    first = push(artifacts, tmp_path, "one", sign_key=keys[0])
    push(artifacts, tmp_path, "two", sign_key=keys[0])
    trash.remove(artifacts.store, Version.of(first))
    trash.restore(artifacts.store, Version.of(first))
    collector = Collector(artifacts.store, Policy(grace=timedelta(0), restorable=timedelta(0)))
    collector.run(collector.plan(datetime.now(UTC) + timedelta(seconds=2)))
    assert artifacts.pull(first.ref, verify_key=keys[1])
    trash.remove(artifacts.store, Version.of(first))
    collector.run(collector.plan(datetime.now(UTC) + timedelta(seconds=2)))
    assert list(artifacts.store.list(signature_prefix(Version.of(first)))) == []
    assert artifacts.pull("notes:latest", verify_key=keys[1])


def test_signatures_travel_with_a_copy(artifacts: ArtifactStore, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    manifest = push(artifacts, tmp_path, sign_key=keys[0])
    target = ArtifactStore(open_store(str(tmp_path / "other")), tmp_path / "cache2")
    copy(artifacts, target, manifest)
    assert target.pull(manifest.ref, verify_key=keys[1])


def test_on_the_command_line(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TLGAN_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "note.txt").write_text("hello")
    assert main(["push", str(tmp_path / "note.txt"), "notes"]) == 0
    assert main(["pull", "notes:latest", "--verify-key", str(keys[1])]) == 8
    assert "is not signed by the key" in capsys.readouterr().err
    assert main(["artifact", "sign", "notes:latest"]) == 2
    assert main(["artifact", "sign", "notes:latest", "--key", str(keys[0])]) == 0
    assert main(["pull", "notes:latest", "--verify-key", str(keys[1])]) == 0
    (tmp_path / "note.txt").write_text("more")
    assert main(["push", str(tmp_path / "note.txt"), "notes", "--sign-key", str(keys[0])]) == 0
    capsys.readouterr()
    assert main(["pull", "notes:latest", "--verify-key", str(keys[1])]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "note.txt").read_text() == "more"
