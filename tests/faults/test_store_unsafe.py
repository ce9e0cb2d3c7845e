"""What could run code when loaded is handed out only on demand, and read back by nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from cluster.store import ArtifactStore, open_store
from cluster.store.formats import danger
from tlgan.artifact import load_network, save_networks
from tlgan.errors import DataError, SpecError, TlganError
from tlgan.models import build_pair
from tlgan.recipe import ModelSpec

TOUCHED = "was-run"


class Evil:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, (TOUCHED,)


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def written(write: Callable[[io.BytesIO], Any]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


OBJECTS = np.array([Evil()], dtype=object)
POLYGLOT = b"X\x10\0\0\0\0\0\0" + (b'{"aaaaaaaaaaa' + b"cos\nmkdir\n(S'was-run'\ntR.").ljust(0x1058)
BAD: dict[str, bytes] = {
    **{f"protocol{p}.dat": pickle.dumps(Evil(), protocol=p) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
    "plain-data.dat": pickle.dumps({"a": 1}),
    "cut-off.dat": pickle.dumps(Evil(), protocol=0)[:-1] + b"\xff\xff",
    "instance.txt": b"(S'was-run'\nios\nmkdir\n.",
    "called.txt": b"cos\nmkdir\n(S'was-run'\ntR.",
    "torch.bin": written(lambda f: torch.save({"w": torch.zeros(2)}, f)),
    "torch-old.bin": written(lambda f: torch.save({"w": torch.zeros(2)}, f, _use_new_zipfile_serialization=False)),
    "objects.npy": written(lambda f: np.save(f, OBJECTS)),
    "objects.npz": written(lambda f: np.savez(f, a=np.zeros(3), b=OBJECTS)),
    "code.npz": packed({"a.npy": written(lambda f: np.save(f, np.zeros(2))), "x.py": b"import os"}),
    "empty-name.npz": packed({"a.npy": b""}),
    "torn.npz": written(lambda f: np.savez(f, a=np.zeros(300)))[:200],
    "program": b"\x7fELF" + bytes(60),
    "setup.exe": b"MZ\x90\0" + bytes(60),
    "module.wasm": b"\0asm\1\0\0\0",
    "model.pt": b"harmless text",
    "MODEL.PKL": b"{}",
    "archive.tar.gz": b"\x1f\x8b\x08\0" + bytes(20),
    "noise": bytes(range(256)),
    "weights.safetensors": POLYGLOT,
}  # fmt: skip
GOOD: dict[str, bytes] = {
    "model.safetensors": save({"w": np.zeros((4, 4), np.float32)}),
    "model.json": b'{"a": [1, 2]}',
    "list.json": b"[1, 2]",
    "README.md": "# Über Ziffern\n".encode(),
    "classes.txt": b"cat\ndog\nfrog\n",
    "more.csv": b"c,d\nx,y\nRabbit,1\n",
    "ice.txt": b"ice\ncream\nis cold\n",
    "numbers.txt": b"1\n2\n3\n",
    "letters.txt": b"a" * 100_000,
    "empty": b"",
    "spec.yaml": b"version: 1\nkind: pretrain\n",
    "grid.png": written(lambda f: Image.new("RGB", (4, 4)).save(f, "PNG")),
    "photo.jpg": written(lambda f: Image.new("RGB", (4, 4)).save(f, "JPEG")),
    "photo.webp": written(lambda f: Image.new("RGB", (4, 4)).save(f, "WEBP")),
    "rows.parquet": written(lambda f: pq.write_table(pa.table({"a": [1, 2]}), f)),
    "plain.npy": written(lambda f: np.save(f, np.zeros((2, 3)))),
    "named.npz": written(lambda f: np.savez(f, a=np.zeros(3), b=np.array(["x"]))),
    "small.npz": written(lambda f: np.savez_compressed(f, a=np.zeros(100_000))),
}  # fmt: skip


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.chdir(tmp_path)
    return ArtifactStore(open_store(str(tmp_path / "store")), tmp_path / "cache")


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", BAD)
def test_what_could_run_code_needs_permission(artifacts: ArtifactStore, tmp_path: Path, name: str) -> None:
    folder = laid_out(tmp_path / "push", {name: BAD[name], "README.md": b"hello"})
    artifacts.push("odd", folder, kind="files")
    for dest in (None, tmp_path / "dest"):
        with pytest.raises(SpecError, match=r"could run code when loaded") as error:
            artifacts.pull("odd:latest", dest)
        assert name in error.value.message
        assert "README" not in error.value.message
        assert "--allow-unsafe" in str(error.value.hint)
    assert not (tmp_path / "dest").exists()
    assert not (tmp_path / "cache" / "artifacts").exists()
    for dest in (None, tmp_path / "dest"):
        assert (artifacts.pull("odd:latest", dest, allow_unsafe=True) / name).read_bytes() == BAD[name]
    with pytest.raises(SpecError):  # being in the cache makes it no better
        artifacts.pull("odd:latest")
    assert not (tmp_path / TOUCHED).exists()


def test_harmless_files_need_none(artifacts: ArtifactStore, tmp_path: Path) -> None:
    artifacts.push("plain", laid_out(tmp_path / "push", GOOD), kind="files")
    path = artifacts.pull("plain:latest")
    assert {name: (path / name).read_bytes() for name in GOOD} == GOOD


def test_the_samples_are_what_they_seem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do run code when unpickled; one begins like a safetensors file besides."""
    monkeypatch.chdir(tmp_path)
    assert struct.unpack("<Q", POLYGLOT[:8])[0] == len(POLYGLOT) - 8
    for data in (POLYGLOT, BAD["called.txt"], BAD["instance.txt"], BAD["protocol0.dat"], BAD["protocol4.dat"]):
        pickle.loads(data)
        (tmp_path / TOUCHED).rmdir()


@given(st.binary(max_size=200), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_no_pickle_that_calls_passes(tmp_path_factory: pytest.TempPathFactory, tail: bytes, protocol: int) -> None:
    file = tmp_path_factory.getbasetemp() / "file.txt"
    file.write_bytes(pickle.dumps([tail, Evil()], protocol) + tail)
    assert danger("file.txt", file)


@given(st.text(max_size=300))
def test_looking_never_fails(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "file.txt"
    for data in (text.encode(), b"\x93NUMPY" + text.encode(), b"PK\3\4" + text.encode(), b"\x80\4" + text.encode()):
        file.write_bytes(data)
        danger("file.txt", file)


# Every place of the library that reads a file of an artifact.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    G, D = build_pair(ModelSpec(resolution=32, width=8, latent_dim=8), 1, 0)
    save_networks(tmp_path / "model", {"G_ema": G, "D": D}, type="gan")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["protocol0.dat", "protocol4.dat", "torch.bin", "torch-old.bin", "objects.npy"])
@pytest.mark.parametrize("victim", ["model.json", "G_ema/b4.safetensors"])
def test_a_model_with_a_pickle_in_it(model: Path, monkeypatch: pytest.MonkeyPatch, victim: str, name: str) -> None:
    monkeypatch.chdir(model)
    (model / victim).write_bytes(BAD[name])
    with pytest.raises(TlganError) as error:
        load_network(model, "G_ema")
    assert error.value.exit_code == 8
    assert not (model / TOUCHED).exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "G_ema/../../outside.safetensors"])
def test_a_model_that_names_files_outside(model: Path, name: str) -> None:
    document = json.loads((model / "model.json").read_text())
    document["networks"]["G_ema"]["blocks"]["b4"] = name
    (model / "model.json").write_text(json.dumps(document))
    with pytest.raises(TlganError, match="outside of the artifact"):
        load_network(model, "G_ema")


@pytest.mark.parametrize("name", ["protocol4.dat", "torch.bin", "noise", "archive.tar.gz"])
def test_a_dataset_with_a_pickle_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from tlgan.data import prepare
    from tlgan.recipe import DataSpec

    monkeypatch.chdir(tmp_path)
    whole = laid_out(tmp_path / "a", {"train-0.parquet": BAD[name]})
    rows = [{"bytes": BAD[name], "path": "x.png"}]
    (tmp_path / "b").mkdir()
    pq.write_table(pa.table({"image": rows}), tmp_path / "b" / "train-0.parquet")
    for folder in (whole, tmp_path / "b"):
        with pytest.raises(DataError):
            prepare(DataSpec(source="parquet", path=str(folder)), resolution=32)
    assert not (tmp_path / TOUCHED).exists()
