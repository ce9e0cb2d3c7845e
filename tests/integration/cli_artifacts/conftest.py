"""Stores with a model that can be drawn with: in a directory, and on each S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_answers import Answer, Tlgan
from servers import S3Server, asked_once, moto_server, rclone_server  # noqa: F401

from cluster.store import ArtifactStore, open_store
from jobs.cli import main
from tlgan.artifact import save_networks
from tlgan.manifest import Manifest, Parent
from tlgan.models import build_pair
from tlgan.recipe import ModelSpec, Recipe

LATENT = 16


@pytest.fixture(autouse=True)
def store_url(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store in force, with a cache of its own. Everything starts empty."""
    monkeypatch.setenv("TLGAN_STORE", f"file://{workdir}/store")
    monkeypatch.setenv("TLGAN_CACHE", f"{workdir}/cache")
    return f"file://{workdir}/store"


@pytest.fixture(params=["directory", "moto", "rclone"])
def any_store(request: pytest.FixtureRequest, store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same on every kind of backend."""
    if request.param == "directory":
        return store_url
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    server.use(monkeypatch)
    url = f"s3://{server.new_bucket()}/team/models"
    monkeypatch.setenv("TLGAN_STORE", url)
    return url


@pytest.fixture
def tlgan_cli(capsys: pytest.CaptureFixture[str]) -> Tlgan:
    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DCGAN of width 8 at 32 px."""
    return save_model(tmp_path_factory.mktemp("model"), seed=0)


def save_model(path: Path, seed: int) -> Path:
    G, D = build_pair(ModelSpec(resolution=32, width=8, latent_dim=LATENT), 1, seed)
    with torch.no_grad():
        for parameter in G.parameters():  # fresh weights draw grey in grey
            parameter.mul_(8 if parameter.dim() == 4 else 1)
    save_networks(path, {"G": G, "D": D, "G_ema": G}, type="gan")
    return path


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"source": "digits", "limit": 100},
            "model": {"resolution": 32, "width": 8, "latent_dim": LATENT, "channels": 1},
            "transfer": {"method": "freeze", "freeze_d": 2},
            "train": {"kimg": 4},
            "metrics": ["kid"],
        }
    )


@pytest.fixture
def published(store_url: str, model_dir: Path, tmp_path: Path) -> tuple[Manifest, Manifest]:
    """`glyphs32`, and `digits32` that was fine-tuned from it, each with a dataset outside of the store."""
    store = ArtifactStore(open_store(store_url))
    glyphs = Parent(role="data", ref="glyphs 57000 images", digest="ab" * 32, external=True)
    parent = store.push("glyphs32", model_dir, kind="gan", parents=[glyphs])
    digits = Parent(role="data", ref="digits 100 images", digest="cd" * 32, external=True)
    protocol = {"extractor": "embedded", "samples_fake": 1000, "samples_real": 1797, "reference": "ef" * 32}
    child = store.push(
        "digits32",
        save_model(tmp_path / "child", seed=1),
        kind="gan",
        parents=[Parent(role="init_from", ref=parent.ref, digest=parent.digest), digits],
        recipe=recipe(),
        metrics=[{"name": "kid", "value": 0.0125, "protocol": protocol}],
        facts={
            "nimg": 4000,
            "data": {"count": 100, "resolution": 32, "channels": 1, "digest": "cd" * 32, "skipped": []},
            "coverage": {"matched": {"G": 20, "D": 14}, "reshaped": {}, "missing": {"G": ["x"]}, "frozen": {"D": 900}},
        },
        aliases=("latest", "best"),
    )
    return parent, child
