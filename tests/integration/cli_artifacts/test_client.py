"""`cluster.Client`: the verbs of the store from Python, and the example of the contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cluster.runs import Runs, new_record
from cluster.store import open_store
from tlgan.errors import IntegrityError, NotFound, SpecError
from tlgan.manifest import Manifest


def test_the_example_of_the_contract(published: tuple[Manifest, Manifest], store_url: str) -> None:
    import cluster
    import tlgan

    path = cluster.Client(store_url).pull("digits32:best")
    g = tlgan.load_generator(path)
    images = tlgan.generate(g, n=64, seed=0)
    assert isinstance(g, torch.nn.Module)
    assert not g.training
    assert images.dtype == torch.uint8
    assert images.shape == (64, 1, 32, 32)
    assert torch.equal(images, tlgan.generate(g, n=64, seed=0))


def test_importing_cluster_is_cheap() -> None:
    code = (
        "import sys, cluster; assert not {'boto3', 'ray', 'torch', 'pydantic'} & set(sys.modules);"
        "from cluster import Client; Client('file:///nowhere'); assert not {'boto3', 'ray', 'torch'} & set(sys.modules);"
        "assert 'Client' in dir(cluster)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    import cluster

    with pytest.raises(AttributeError, match="no attribute 'client_'"):
        cluster.client_  # noqa: B018


def test_push_pull_and_questions_on_every_backend(any_store: str, model_dir: Path, tmp_path: Path) -> None:
    from cluster import Client

    client = Client(any_store)
    pushed = client.push(model_dir, "mine", aliases=["latest", "best"])
    assert (pushed.kind, client.resolve("mine:best")) == ("gan", pushed)
    assert client.pull(pushed.ref, tmp_path / "there") == tmp_path / "there"
    assert (tmp_path / "there" / "model.json").read_bytes() == (model_dir / "model.json").read_bytes()
    assert client.show("mine:best")["digest"] == pushed.digest
    assert [(row["name"], row["digest"]) for row in client.artifacts()] == [("mine", pushed.digest)]
    assert client.artifacts("mine")[0]["aliases"] == {"best": pushed.ref, "latest": pushed.ref}
    assert client.ls() == []


def test_ls_has_the_summaries_of_runs(store_url: str) -> None:
    from cluster import Client

    record = Runs(open_store(store_url)).create(new_record("tiny-1", "tiny", "pretrain", state="succeeded"))
    assert Client(store_url).ls() == [record.summary()]
    assert Client().ls() == Client(store_url).ls()


def test_errors_are_those_of_tlgan(published: tuple[Manifest, Manifest], store_url: str, tmp_path: Path) -> None:
    from cluster import Client

    client = Client(store_url, cache_dir=tmp_path / "own")
    with pytest.raises(SpecError, match="write digits32:latest"):
        client.pull("digits32")
    with pytest.raises(NotFound, match='did you mean "digits32"'):
        client.pull("digit32:best")
    with pytest.raises(NotFound, match="does not exist"):
        client.push(tmp_path / "absent", "x")
    entry = next(entry for entry in published[1].files if entry.path == "model.json")
    open_store(store_url).put(f"blobs/{entry.sha256[:2]}/{entry.sha256}", b"x" * entry.size)
    with pytest.raises(IntegrityError):
        client.pull("digits32:best", tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert (tmp_path / "own").is_dir()
