"""Films, style mixing, directions, projection, blending and ONNX by their verbs."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from cli_answers import Tlgan
from PIL import Image

from cluster.store import ArtifactStore
from tlgan.artifact import load_network, save_networks
from tlgan.manifest import Manifest
from tlgan.models import build_pair
from tlgan.recipe import ModelSpec

pytestmark = pytest.mark.usefixtures("published")


@pytest.fixture
def styles(tmp_path: Path) -> str:
    """A small published stylegan2."""
    G, D = build_pair(ModelSpec(arch="stylegan2", resolution=32, width=4, latent_dim=8, max_width=8), 3, 0)
    save_networks(tmp_path / "styles", {"G": G, "D": D, "G_ema": G}, type="gan")
    ArtifactStore().push("styled", tmp_path / "styles", kind="gan")
    return "styled:latest"


def frames_of(path: str) -> list[np.ndarray]:
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        found = []
        for number in range(getattr(film, "n_frames", 1)):
            film.seek(number)
            found.append(np.asarray(film.convert("RGB")))
        return found


@pytest.mark.parametrize("ref", ["digits32:best", "styled:latest"])
def test_a_film_loops(tlgan_cli: Tlgan, styles: str, ref: str) -> None:
    answer = tlgan_cli("generate", ref, "--video", "--n", 3, "--interpolate", 4, "--out", "film.gif", "--json")
    assert answer.code == 0, answer.err
    assert (answer.data["images"], answer.data["format"], answer.data["fps"]) == (12, "gif", 25)
    assert Image.open("film.gif").size == (64, 64)
    first = Path("film.gif").read_bytes()
    tlgan_cli("generate", ref, "--video", "--n", 3, "--interpolate", 4, "--out", "film.gif")
    assert Path("film.gif").read_bytes() == first


def test_the_frames_of_a_film_are_images_of_the_generator(tlgan_cli: Tlgan) -> None:
    tlgan_cli("generate", "digits32:best", "--video", "--n", 3, "--interpolate", 3, "--out", "film.gif")
    tlgan_cli("generate", "digits32:best", "--n", 3, "--out", "ends.npz")
    with np.load("ends.npz") as file:
        ends = file["images"][:, 0]
    frames = frames_of("film.gif")
    assert len(frames) == 9
    for frame, end in zip(frames[::3], ends, strict=True):
        assert np.abs(frame[::2, ::2, 0].astype(int) - end).max() <= 2


def test_an_encoder_on_the_path_makes_mp4(tlgan_cli: Tlgan, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that writes down what it was given: raw frames of the size and number that its options announce."""
    program = workdir / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$0.options"\ncat > "$last"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    answer = tlgan_cli("generate", "digits32:best", "--video", "--n", 3, "--interpolate", 2)
    assert (answer.code, answer.out) == (0, f"{workdir}/digits32-best.mp4\n")
    assert Path("digits32-best.mp4").stat().st_size == 6 * 64 * 64 * 3
    assert "-s 64x64 -r 25 -i -" in Path(f"{program}.options").read_text()
    program.write_text("#!/bin/sh\necho broken pipe dream >&2\nexit 3\n")
    answer = tlgan_cli("generate", "digits32:best", "--video", "--n", 3, "--interpolate", 2, "--out", "b.mp4")
    assert (answer.code, Path("b.mp4").exists()) == (5, False)
    assert "broken pipe dream" in answer.err


def test_style_mixing_makes_a_table(tlgan_cli: Tlgan, styles: str) -> None:
    answer = tlgan_cli("generate", styles, "--style-mix", "b16", "--n", 2, "--out", "mix.png", "--json")
    assert answer.code == 0, answer.err
    assert answer.data["images"] == 4
    assert Image.open("mix.png").size == (3 * 64 + 2 * 2, 3 * 64 + 2 * 2)


def test_directions_are_drawn_and_saved(tlgan_cli: Tlgan, styles: str, workdir: Path) -> None:
    answer = tlgan_cli("directions", styles, "--n", 2, "--steps", 3, "--level", "b16")
    assert answer.code == 0, answer.err
    sheet, vectors = answer.out.splitlines()
    assert (sheet, vectors) == (f"{workdir}/styled-latest-directions.png", f"{workdir}/styled-latest-directions.npz")
    assert Image.open(sheet).size == (3 * 64 + 2 * 2, 2 * 64 + 2)
    with np.load(vectors) as file:
        assert file["directions"].shape == (2, 8)
        assert file["gains"][0] >= file["gains"][1]


def test_a_projection_leaves_latent_picture_and_progress(tlgan_cli: Tlgan, workdir: Path) -> None:
    tlgan_cli("generate", "digits32:best", "--n", 1, "--seed", 5, "--format", "png", "--out", "target")
    answer = tlgan_cli("project", "digits32:best", "target/000000.png", "--steps", 20, "--out", "found", "--json")
    assert answer.code == 0, answer.err
    assert answer.data["files"] == ["latent.npz", "progress.png", "projection.png"]
    assert answer.data["distance"] < answer.data["start"]
    with np.load("found/latent.npz") as file:
        assert file["code"].shape == (16,)
        assert str(file["space"]) == "z"
        assert len(file["distances"]) == 20
    assert Image.open("found/projection.png").size == (2 * 64 + 2, 64)
    assert tlgan_cli("project", "digits32:best", "target/000000.png", "--out", "found").code == 4


def test_a_blend_is_published_with_both_parents(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    glyphs, digits = published
    answer = tlgan_cli("blend", "glyphs32:latest", "digits32:best", "--from", "b16", "--name", "mixed", "--json")
    assert answer.code == 0, answer.err
    assert "are no relatives" in answer.err, "the fixture's two have other first weights"
    store = ArtifactStore()
    made = store.resolve("mixed:latest")
    assert [(p.role, p.digest) for p in made.parents] == [("coarse", glyphs.digest), ("fine", digits.digest)]
    assert made.facts["blend"]["from"] == "b16"
    places = {entry.path: entry.sha256 for entry in made.files}
    assert places["G_ema/b8.safetensors"] == {e.path: e.sha256 for e in glyphs.files}["G_ema/b8.safetensors"]
    assert places["G_ema/b32.safetensors"] == {e.path: e.sha256 for e in digits.files}["G_ema/b32.safetensors"]
    assert load_network(store.pull(made), "D").role == "D"
    assert tlgan_cli("generate", "mixed:latest", "--n", 2, "--out", "two.png").code == 0
    again = tlgan_cli("blend", "glyphs32:latest", "digits32:best", "--from", "b16", "--name", "mixed", "--json")
    assert again.data["digest"] == made.digest


def test_an_onnx_file_is_written(tlgan_cli: Tlgan, workdir: Path) -> None:
    answer = tlgan_cli("export-onnx", "digits32:best", "g.onnx", "--truncation", 0.8, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["largest_difference"] < 1e-4
    assert answer.data["bytes"] == Path("g.onnx").stat().st_size
    assert tlgan_cli("export-onnx", "digits32:best", "g.onnx").code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("generate", "digits32:best", "--video", "--out", "a.png"), 2, "writes .mp4 or .gif"),
        (("generate", "digits32:best", "--video", "--n", "2"), 2, "a loop needs at least 3"),
        (("generate", "digits32:best", "--video", "--format", "npz"), 2, "does not go with --format"),
        (("generate", "digits32:best", "--video", "--style-mix", "b8"), 2, "does not go with --style-mix"),
        (("generate", "digits32:best", "--style-mix", "b8"), 2, "needs a network with styles"),
        (("generate", "styled:latest", "--style-mix", "b7"), 2, "expected one of: b4, b8, b16, b32"),
        (("directions", "digits32:best", "--level", "b8"), 2, "reads its latents once"),
        (("directions", "digits32:best", "--n", "17"), 2, "1 to 16 directions"),
        (("project", "digits32:best", "absent.png"), 3, "there is no image absent.png"),
        (("project", "digits32:best", "notes.txt"), 2, "can't be read"),
        (("project", "digits32:best", "notes.txt", "--perceptual", "vgg"), 2, "expected lpips:FOLDER, received vgg"),
        (("project", "digits32:best", "notes.txt", "--perceptual", "lpips:none"), 3, "LPIPS: none holds no file"),
        (("blend", "glyphs32:latest", "digits32:best", "--from", "b17"), 2, 'did you mean "b16"?'),
        (("blend", "glyphs32:latest", "styled:latest", "--from", "b16"), 2, "built differently"),
        (("blend", "glyphs32:latest", "nobody:latest", "--from", "b16"), 3, "nobody"),
        (("blend", "glyphs32", "digits32:best", "--from", "b16"), 2, "glyphs32"),
        (("export-onnx", "digits32:best", "g.pt"), 2, "does not end with .onnx"),
    ],
)
def test_mistakes_write_nothing(
    tlgan_cli: Tlgan, styles: str, arguments: tuple[str, ...], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("notes.txt").write_text("no picture")
    before = sorted(path.name for path in Path().iterdir())
    names = ArtifactStore().names()
    answer = tlgan_cli(*arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert sorted(path.name for path in Path().iterdir() if path.name != "cache") == [n for n in before if n != "cache"]
    assert ArtifactStore().names() == names
