"""Images that are no squares, and images with alpha: from the spec to a trained, published and drawn generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from tiny_gan import dataset, new_learner, pair, recipe, run_steps

from tlgan import shapes
from tlgan.artifact import load_generator, save_networks
from tlgan.canonical import digest_of
from tlgan.data import Dataset, prepare, write_parquet
from tlgan.data.image import fit, to_channels
from tlgan.data.source import open_source
from tlgan.errors import DataError
from tlgan.grid import image_png, to_grid
from tlgan.models import build_pair
from tlgan.recipe import DataSpec, ModelSpec
from tlgan.registry import ARCHS, SOURCES, blocks_at
from tlgan.sampling import generate
from tlgan.transfer import start_from

SIZES = [[32, 16], [16, 32], [32, 24], [8, 32]]
EMBEDDED = [name for name in SOURCES if not SOURCES.facts(name).keys() & {"path", "argument"}]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("arch", list(ARCHS))
def test_every_network_draws_and_reads_rectangles(arch: str, size: list[int]) -> None:
    G, D = pair(arch, channels=3, resolution=size)
    images = G(torch.randn(4, G.latent_dim))
    assert tuple(images.shape) == (4, 3, *size)
    logits = D(images, **({"parts": 1} if D.looks_at_batch else {}))
    assert tuple(logits.shape) == (4,)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*G.parameters(), *D.parameters()])
    assert (len(G.blocks), len(D.blocks)) == (blocks_at(size, arch, "G"), blocks_at(size, arch, "D"))
    assert next(iter(D.blocks)) == f"b{max(size)}"


@pytest.mark.parametrize("arch", list(ARCHS))
def test_a_square_written_as_two_numbers_is_the_same_network(arch: str) -> None:
    spec = ModelSpec(arch=arch, resolution=[32, 32], width=4, latent_dim=8)
    plain = ModelSpec(arch=arch, resolution=32, width=4, latent_dim=8)
    assert spec == plain
    assert digest_of(spec.model_dump(mode="json")) == digest_of(plain.model_dump(mode="json"))
    assert build_pair(spec, 1, 0)[0].config == build_pair(plain, 1, 0)[0].config


@pytest.mark.parametrize("arch", list(ARCHS))
@pytest.mark.parametrize(("size", "channels"), [([16, 32], 1), (32, 4), ([32, 24], 2)], ids=str)
def test_training_publishes_a_generator_that_draws_them(arch: str, size: Any, channels: int, tmp_path: Path) -> None:
    height, width = shapes.sides(size)
    rng = np.random.default_rng(0)
    data = Dataset.from_arrays(rng.integers(0, 256, (16, channels, height, width), dtype=np.uint8))
    augment = {"name": "diffaugment", "policy": ["color", "translation", "cutout"]}
    of = recipe(model={"arch": arch, "resolution": size}, loss={"r1": 1.0, "r1_interval": 1}, augment=augment)
    learner = new_learner(of, channels)
    rows = run_steps(learner, data, 2)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    save_networks(tmp_path, learner.networks, type="gan")
    images = generate(load_generator(tmp_path), 3)
    assert tuple(images.shape) == (3, channels, height, width)
    assert to_grid(images, 1, 3, pad=0).shape == (height, 3 * width, 3)


@pytest.mark.parametrize(
    ("arch", "size", "said"),
    [
        ("dcgan", [32, 20], "shorter side of 8, 16, 24 px with 32"),
        ("stylegan2", [512, 48], "shorter side of 128, 256, 384 px with 512"),
        ("resnet", [48, 24], "on the longer side"),
        ("dcgan", [32, 32, 32], "height, width"),
        ("dcgan", [32, 4], "from 8 to 1024"),
        ("dcgan", "32", r"height, width\]; received '32'"),
        ("dcgan", True, "height, width"),
        ("dcgan", 32.0, "height, width"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(arch: str, size: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSpec(arch=arch, resolution=size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("source", EMBEDDED)
def test_sources_fill_rectangles(source: str, size: list[int]) -> None:
    opened = open_source(DataSpec(source=source, crops=6))
    images = [opened.read(index, size)[0] for index in range(6)]
    assert {image.shape for image in images} == {(opened.channels, *size)}
    assert all(image.max() > image.min() for image in images)


def test_datasets_tell_their_size() -> None:
    data = prepare(DataSpec(source="digits", limit=6, resolution=[16, 24]), resolution=64)
    assert data.images.shape == (6, 1, 16, 24)
    assert data.facts["resolution"] == [16, 24]


def test_a_rectangle_is_the_middle_of_the_picture() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :, 0] = np.arange(80)
    assert fit(Image.fromarray(pixels), [40, 20], 3)[0, 0].tolist() == list(range(30, 50))
    assert fit(Image.fromarray(pixels), [40, 80], 3)[0, 0].tolist() == list(range(80))
    halved = fit(Image.fromarray(pixels), [20, 40], 1)
    assert halved.shape == (1, 20, 40)


def test_rectangles_count_pixels_after_the_picture_was_turned(tmp_path: Path) -> None:
    """A telephone's upright photograph: 80x40 px in the file, shown as 40x80."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((40, 80, 3), 90, np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert prepare(DataSpec(source="folder", path=str(tmp_path)), resolution=[80, 40]).images.shape == (1, 3, 80, 40)
    with pytest.raises(DataError, match="has 40x80"):
        prepare(DataSpec(source="folder", path=str(tmp_path)), resolution=[40, 80])


def test_alpha_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:16, :, 3] = 255
    pixels[16:, :, 2] = 255  # a blue that nobody sees
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    spec = DataSpec(source="folder", path=str(tmp_path / "images"), channels=4)
    kept = prepare(spec, resolution=32)
    assert kept.images[0, :, 0, 0].tolist() == [200, 0, 0, 255]
    assert kept.images[0, :, 31, 0].tolist() == [0, 0, 0, 0]
    flat = prepare(spec.model_copy(update={"channels": None}), resolution=32)
    assert flat.images[0, :, 31, 0].tolist() == [255, 255, 255]
    assert prepare(spec.model_copy(update={"channels": 2}), resolution=32).images[0, 1, [0, 31], 0].tolist() == [255, 0]
    write_parquet(kept, tmp_path / "packed")
    back = prepare(DataSpec(source="parquet", path=str(tmp_path / "packed")), resolution=32)
    assert back.digest == kept.digest
    Image.open(tmp_path / "images" / "a.png").resize((64, 64)).save(tmp_path / "images" / "a.png")
    edge = prepare(spec, resolution=32).images[0, :, 15:17, 5]
    assert (edge[2] < 10).all(), "what lies under the transparent half does not leak"
    assert (edge[0] > 180).all()


def test_opaque_images_have_full_alpha() -> None:
    digits = prepare(DataSpec(source="digits", limit=3, channels=4), resolution=16).images
    assert (digits[:, 3] == 255).all()
    assert np.array_equal(digits[:, 0], prepare(DataSpec(source="digits", limit=3), resolution=16).images[:, 0])


def test_channels_are_converted_by_one_rule() -> None:
    rgba = np.array([[[10]], [[20]], [[30]], [[51]]], np.uint8)  # alpha 0.2
    assert to_channels(rgba, 3)[:, 0, 0].tolist() == [206, 208, 210]
    assert to_channels(rgba, 2)[1, 0, 0] == 51
    assert to_channels(rgba, 1)[0, 0, 0] == 208
    assert to_channels(to_channels(rgba, 3), 4)[:, 0, 0].tolist() == [206, 208, 210, 255]


def test_sheets_show_alpha_over_a_chequerboard_and_files_keep_it(tmp_path: Path) -> None:
    clear = np.zeros((1, 4, 8, 8), np.uint8)
    assert sorted(set(to_grid(clear, 1, 1).ravel().tolist())) == [204, 255]
    opaque = np.full((1, 2, 8, 8), 255, np.uint8)
    assert (to_grid(opaque, 1, 1) == 255).all()
    (tmp_path / "a.png").write_bytes(image_png(clear[0]))
    assert Image.open(tmp_path / "a.png").mode == "RGBA"


@pytest.mark.parametrize("arch", list(ARCHS))
def test_a_parent_without_alpha_begins_opaque_and_unread(arch: str, tmp_path: Path) -> None:
    """RGB parent, RGBA child: the same colours, alpha nearly full, and D gives what it gave whatever alpha is."""
    G, D = (network.eval() for network in pair(arch, channels=3))
    save_networks(tmp_path, {"G": G, "D": D, "G_ema": G}, type="gan")
    of = recipe(model={"arch": arch}, transfer={"method": "finetune"})
    start = start_from(tmp_path, of, 4)
    z = torch.randn(6, G.latent_dim)
    images, before = start.G_ema.eval()(z), G(z)
    torch.testing.assert_close(images[:, :3], before, rtol=1e-4, atol=1e-5)
    assert images[:, 3].mean() > 0.5
    new = ["blocks.b32.to_image.bias"] if arch == "r3gan" else []  # which only images with alpha have there
    assert start.coverage.missing == {"G": new, "D": [], "G_ema": new}
    child, shown = start.D.eval(), torch.randn(6, 4, 32, 32)
    other = torch.cat([shown[:, :3], -shown[:, 3:]], 1)
    torch.testing.assert_close(child(shown), child(other))
    ours, theirs = child(shown), D(shown[:, :3])
    if D.equalised:  # spectral norms of the two first layers differ by a constant
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    grey = start_from(tmp_path, of, 2)
    assert grey.coverage.missing == start.coverage.missing


def test_the_colours_of_diffaugment_leave_alpha_alone() -> None:
    from tlgan.augment.diffaugment import color

    x, u = torch.rand(3, 4, 8, 8), torch.rand(3, 3)
    changed = color(x, u)
    assert torch.equal(changed[:, 3], x[:, 3])
    torch.testing.assert_close(changed[:, :3], color(x[:, :3], u))


def test_translations_and_holes_follow_each_side() -> None:
    from tlgan.augment.diffaugment import cutout, translation

    x = torch.ones(2, 1, 16, 64)
    moved = translation(x, torch.tensor([[0.999, 0.5], [0.5, 0.999]]))
    assert (moved == 0).sum((2, 3)).flatten().tolist() == [2 * 64, 8 * 16]
    assert (cutout(x, torch.full((2, 2), 0.5)) == 0).sum((1, 2, 3)).tolist() == [8 * 32] * 2


def test_metrics_look_at_alpha_over_white() -> None:
    from tlgan.metrics.extractors import to_channels as floats

    x = torch.tensor([10.0, 20.0, 30.0, 51.0])[None, :, None, None]
    assert floats(x, 3).flatten().tolist() == pytest.approx([206, 208, 210])


def test_data_of_another_shape_than_the_networks_is_told() -> None:
    from tlgan.errors import SpecError
    from tlgan.train import _check_resolution

    G, _ = pair(resolution=[32, 16])
    _check_resolution(G, Dataset.from_arrays(np.zeros((2, 1, 32, 16), np.uint8)))
    with pytest.raises(SpecError, match=r"32 px"):
        _check_resolution(G, dataset(resolution=32))
