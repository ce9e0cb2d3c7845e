"""Sharded data from the store: what each rank's node fetches, what is trained from it, what is said when it can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.inputs import images_of
from cluster.specfile import parse_job
from cluster.store import ArtifactStore
from jobs.cli import main
from jobs.execute import execute
from jobs.kinds.gan import recipe_of
from jobs.session import Session
from tlgan.data.sharded import Share
from tlgan.distributed import World
from tlgan.errors import SpecError

SPEC: dict[str, Any] = {
    "kind": "pretrain",
    "name": "net",
    "data": {"artifact": "digits:latest", "sharded": True},
    "model": {"width": 8, "latent_dim": 16, "conditional": True},
    "train": {"kimg": 0.2, "batch_size": 32},
}


@pytest.fixture(autouse=True)
def _packed(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine shards of the digits."""
    monkeypatch.setenv("TLGAN_STORE", f"file://{workdir}/store")
    monkeypatch.setenv("TLGAN_CACHE", f"{workdir}/cache")
    monkeypatch.setattr("tlgan.data.pack.ROWS", 200)
    monkeypatch.setattr("tlgan.data.pack.SHARD_BYTES", 1)
    assert main(["-q", "data", "pack", "digits", "digits", "--shuffle", "-s", "resolution=32"]) == 0


def held(cache: Path, store: ArtifactStore) -> list[int]:
    """Numbers of the shards in a cache."""
    files = store.resolve("digits:latest").files
    blobs = [cache / "store" / "blobs" / file.sha256[:2] / file.sha256 for file in files]
    return [k for k, blob in enumerate(blobs) if blob.exists()]


def test_each_node_fetches_what_its_ranks_show(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = parse_job(SPEC)
    with Session(ArtifactStore()) as session:
        recipe, _ = recipe_of(job, session)  # type: ignore[arg-type]
    found = []
    for rank in range(2):
        node = workdir / f"node{rank}"
        monkeypatch.setenv("TLGAN_CACHE", str(node))
        assert isinstance(images_of(recipe, ArtifactStore(), World(rank, 2)), Share)
        found.append(held(node, ArtifactStore()))
    assert found == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]


def test_a_training_on_sharded_data(workdir: Path) -> None:
    store = ArtifactStore()
    datasets = workdir / "cache" / "datasets"
    before = {path.name for path in datasets.iterdir()}
    with Session(store) as session:
        outcome = execute(parse_job(SPEC), session)
        again = execute(parse_job(SPEC), session)
    manifest = store.resolve("net:latest")
    assert again.outputs == outcome.outputs
    assert manifest.facts["data"]["count"] == 1797
    assert manifest.parents[0].ref == store.resolve("digits:latest").ref
    (pieces,) = {path for path in datasets.iterdir() if path.name not in before}
    assert len([path for path in pieces.iterdir() if path.is_dir()]) == 9  # a piece a shard, and no whole


def test_a_pack_in_the_order_of_its_source_is_refused_before_anything_starts(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-q", "data", "pack", "digits", "plain", "-s", "resolution=32"]) == 0
    spec = {**SPEC, "data": {"artifact": "plain:latest", "sharded": True}}
    with Session(ArtifactStore()) as session, pytest.raises(SpecError, match="packed in the order of its source"):
        execute(parse_job(spec), session)
    assert not (workdir / "store" / "runs").exists()


def test_its_size_is_that_of_the_pack() -> None:
    with Session(ArtifactStore()) as session, pytest.raises(SpecError, match="are packed at 32 px"):
        execute(parse_job({**SPEC, "model": {"resolution": 64, "conditional": True}}), session)
