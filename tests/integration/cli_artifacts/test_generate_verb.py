"""`tlgan generate`: the same seed draws the same pixels, in every format, and nobody's files are written over."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_answers import Tlgan
from PIL import Image

import tlgan
from cluster.store import ArtifactStore
from tlgan.manifest import Manifest

pytestmark = pytest.mark.usefixtures("published")


def arrays(path: str) -> np.ndarray:
    with np.load(path) as file:
        return np.asarray(file["images"])


def test_the_same_seed_draws_the_same_bytes(tlgan_cli: Tlgan, workdir: Path) -> None:
    for name, seed in (("a.npz", 3), ("b.npz", 3), ("c.npz", 4)):
        answer = tlgan_cli("generate", "digits32:best", "--n", 70, "--seed", seed, "--out", name)
        assert (answer.code, answer.out) == (0, f"{workdir}/{name}\n")
    assert arrays("a.npz").shape == (70, 1, 32, 32)
    assert arrays("a.npz").dtype == np.uint8
    assert np.array_equal(arrays("a.npz"), arrays("b.npz"))
    assert not np.array_equal(arrays("a.npz"), arrays("c.npz"))
    g = tlgan.load_generator(ArtifactStore().pull("digits32:best"))
    assert np.array_equal(arrays("a.npz"), tlgan.generate(g, n=70, seed=3).numpy())


def test_files_of_the_same_seed_are_equal(tlgan_cli: Tlgan) -> None:
    for name in ("a.png", "b.png"):
        tlgan_cli("generate", "digits32:best", "--n", 9, "--out", name)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert Image.open("a.png").size == (3 * 64 + 2 * 2, 3 * 64 + 2 * 2)


def test_every_format_shows_the_same_images(tlgan_cli: Tlgan) -> None:
    tlgan_cli("generate", "digits32:best", "-n", 5, "--format", "npz", "-o", "all.npz")
    answer = tlgan_cli("generate", "digits32:best", "-n", 5, "--format", "png", "-o", "folder")
    assert answer.code == 0
    files = sorted(Path("folder").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(5)]
    drawn = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(drawn, arrays("all.npz")[:, 0])


def test_defaults_and_json(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], workdir: Path) -> None:
    answer = tlgan_cli("generate", "digits32:best", "--json").data
    assert (answer["path"], answer["images"]) == (str(workdir / "digits32-best.png"), 64)
    assert (answer["ref"], answer["digest"], answer["seed"]) == (published[1].ref, published[1].digest, 0)
    assert Image.open(answer["path"]).size == (8 * 64 + 7 * 2, 8 * 64 + 7 * 2)


def test_truncation_makes_images_more_alike(tlgan_cli: Tlgan) -> None:
    for name, truncation in (("full.npz", 1.0), ("half.npz", 0.5), ("none.npz", 0.0)):
        tlgan_cli("generate", "digits32:best", "--n", 32, "--truncation", truncation, "--out", name)
    spread = [arrays(name).astype(float).std(0).mean() for name in ("full.npz", "half.npz", "none.npz")]
    assert spread[0] > spread[1] > spread[2] == 0


def test_a_strip_goes_from_latent_to_latent(tlgan_cli: Tlgan) -> None:
    strip = tlgan_cli("generate", "digits32:best", "--interpolate", 6, "--out", "strip.png", "--json").data
    assert strip["images"] == 7
    assert Image.open("strip.png").size == (7 * 64, 64)
    longer = tlgan_cli("generate", "digits32:best", "--interpolate", 6, "--n", 3, "--out", "long.png", "--json").data
    assert longer["images"] == 13
    tlgan_cli("generate", "digits32:best", "--n", 3, "--out", "ends.npz")
    pixels, ends = np.asarray(Image.open("long.png")), arrays("ends.npz")[:, 0]
    for place, end in ((0, ends[0]), (6, ends[1]), (12, ends[2])):
        assert np.array_equal(pixels[::2, place * 64 : (place + 1) * 64 : 2], end)


def test_a_folder_that_pull_printed_serves_too(tlgan_cli: Tlgan) -> None:
    tlgan_cli("generate", "digits32:best", "--n", 4, "--out", "a.npz")
    path = tlgan_cli("pull", "digits32:best").out.strip()
    tlgan_cli("pull", "digits32:best", "here")
    shutil.rmtree("store")
    for place, name in ((path, "b.npz"), ("./here", "c.npz"), ("here", "d.npz")):
        assert tlgan_cli("generate", place, "--n", 4, "--out", name).code == 0
        assert np.array_equal(arrays("a.npz"), arrays(name))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "png", "--out", "taken"), "no empty folder"),
        (("--out", "taken"), "no empty folder"),
        (("--format", "grid", "--out", "taken"), "is a folder; expected a file"),
        (("--format", "npz", "--out", "taken"), "is a folder; expected a file"),
        (("--format", "png", "--out", "file"), "no empty folder"),
    ],
)
def test_what_is_there_stays(tlgan_cli: Tlgan, options: tuple[str, ...], said: str) -> None:
    Path("taken").mkdir()
    Path("taken", "mine.txt").write_text("mine")
    Path("file").write_text("mine")
    answer = tlgan_cli("generate", "digits32:best", "--n", 2, *options)
    assert (answer.code, answer.out) == (4, "")
    assert said in answer.err
    assert [path.name for path in Path("taken").iterdir()] == ["mine.txt"]
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("digits32:best", "--n", "0"), 2, "--n"),
        (("digits32:best", "--truncation", "1.5"), 2, "--truncation"),
        (("digits32:best", "--truncation", "nan"), 2, "truncation"),
        (("digits32:best", "--format", "gird"), 2, 'did you mean "grid"?'),
        (("digits32:best", "--format", "npz", "--out", "a.png"), 2, "--format grid does"),
        (("digits32:best", "--interpolate", "4", "--format", "npz"), 2, "one PNG"),
        (("digits32:best", "--interpolate", "4", "--n", "1"), 2, "2 ends"),
        (("notes:latest",), 2, "is of kind files; expected a generator"),
        (("./absent",), 3, "there is no folder absent"),
        (("./empty",), 3, "holds no model.json"),
    ],
)
def test_mistakes_write_nothing(tlgan_cli: Tlgan, arguments: tuple[str, ...], code: int, said: str) -> None:
    Path("empty").mkdir()
    Path("empty.txt").write_text("x")
    ArtifactStore().push("notes", Path("empty.txt"), kind="files")
    before = sorted(Path().iterdir())
    answer = tlgan_cli("generate", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert sorted(path for path in Path().iterdir() if path.name != "cache") == [p for p in before if p.name != "cache"]
