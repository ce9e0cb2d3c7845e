"""The folder source: nested folders, every kind of file, labels, and what goes wrong."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlgan.data.dataset import Dataset, prepare
from tlgan.errors import DataError, NotFound, SpecError
from tlgan.recipe import DataSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def save(path: Path, image: Image.Image | np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)


def colour(value: tuple[int, ...], size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, value)


def load(folder: Path, **fields: object) -> Dataset:
    return prepare(DataSpec(source="folder", path=str(folder), **fields), resolution=16)  # type: ignore[arg-type]


def only(folder: Path, **fields: object) -> np.ndarray:
    (image,) = load(folder, **fields).images
    return np.asarray(image)


def test_nested_files_are_labelled_by_their_first_subfolder(folder: Path) -> None:
    save(folder / "dog" / "deep" / "er" / "a.png", colour((255, 0, 0)))
    save(folder / "cat" / "b.JPEG", colour((0, 255, 0)))
    save(folder / "bird" / "c.webp", colour((0, 0, 255)), lossless=True)
    save(folder / "top.bmp", colour((9, 9, 9)))
    save(folder / ".hidden" / "x.png", colour((1, 1, 1)))
    save(folder / "cat" / "._b.png", colour((1, 1, 1)))
    (folder / "notes.txt").write_text("not an image")
    dataset = load(folder)
    assert dataset.label_names == ["bird", "cat", "dog"]
    assert dataset.labels.tolist() == [0, 1, 2, -1]  # by path: bird/c, cat/b, dog/deep/er/a, top
    dominant = dataset.images[:3].mean((2, 3)).argmax(1)
    assert dominant.tolist() == [2, 1, 0]
    assert dataset.skipped == []


def test_grey_alpha_and_truncated_together(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(folder / "a_grey.png", colour((100,), mode="L"))
    save(folder / "b_alpha.png", colour((255, 0, 0, 0), mode="RGBA"))
    save(folder / "c_colour.jpg", colour((10, 200, 30)), quality=95)
    rng = np.random.default_rng(0)
    save(folder / "d_cut.jpg", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = (folder / "d_cut.jpg").read_bytes()
    (folder / "d_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "e_text.png").write_text("no picture")
    (folder / "f_empty.png").touch()
    with caplog.at_level(logging.WARNING):
        dataset = load(folder)
    assert dataset.images.shape == (3, 3, 16, 16)
    assert np.unique(dataset.images[0]).tolist() == [100]
    assert np.unique(dataset.images[1]).tolist() == [255]  # transparent: the white background
    reasons = dict(dataset.skipped)
    assert list(reasons) == ["d_cut.jpg", "e_text.png", "f_empty.png"]
    assert "truncated" in reasons["d_cut.jpg"]
    assert reasons["e_text.png"] == "not an image of a known format"
    assert reasons["f_empty.png"] == "the file is empty"
    assert "skipped 3 broken images: d_cut.jpg" in caplog.text
    assert dataset.facts["skipped"][2] == ["f_empty.png", "the file is empty"]


def test_only_grey_images_make_a_grey_dataset(folder: Path) -> None:
    save(folder / "a.png", colour((100,), mode="L"))
    save(folder / "b.png", colour((1,), mode="1"))
    save(folder / "c.png", colour((77, 255), mode="LA"))
    dataset = load(folder)
    assert dataset.channels == 1
    assert dataset.images[:, 0, 0, 0].tolist() == [100, 255, 77]
    assert load(folder, channels=3).images[:, :, 0, 0].tolist() == [[100] * 3, [255] * 3, [77] * 3]


def test_half_transparent_pixels_are_blended_with_white(folder: Path) -> None:
    save(folder / "a.png", colour((0, 0, 0, 128), mode="RGBA"))
    assert only(folder)[:, 3, 3].tolist() == pytest.approx([127] * 3, abs=1)


def test_palette_with_a_transparent_entry(folder: Path) -> None:
    image = colour((200, 10, 10)).quantize(4)
    save(folder / "opaque.png", image)
    save(folder / "transparent.gif", image, transparency=image.getpixel((0, 0)))
    dataset = load(folder)
    assert dataset.images[0, :, 0, 0].tolist() == [200, 10, 10]
    assert dataset.images[1, :, 0, 0].tolist() == [255, 255, 255]


def test_animations_give_their_first_frame(folder: Path) -> None:
    frames = [colour((250, 0, 0)), colour((0, 250, 0))]
    save(folder / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert only(folder)[:, 0, 0].tolist() == [250, 0, 0]


def test_sixteen_bits_are_scaled(folder: Path) -> None:
    ramp = np.array([0, 65535, 128, 129, *range(300, 60000, 5000)], np.uint16)
    save(folder / "a.png", np.tile(ramp, (16, 1)))
    assert only(folder)[0, 0].tolist() == np.rint(ramp / 257).astype(int).tolist()


def test_floating_point_pixels_are_skipped_with_the_reason(folder: Path) -> None:
    save(folder / "a.tif", np.zeros((16, 16), np.float32))
    save(folder / "b.png", colour((5, 5, 5)))
    assert load(folder).skipped == [
        ("a.tif", "floating-point pixels have no defined range; save it with 8 or 16 bits"),
    ]


def test_cmyk_becomes_rgb(folder: Path) -> None:
    save(folder / "a.jpg", colour((0, 255, 255, 0), mode="CMYK"), quality=95)
    red, green, blue = only(folder)[:, 8, 8].tolist()
    assert red > 200
    assert green < 60
    assert blue < 60


def test_exif_orientation_is_obeyed(folder: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :, 0] = 255  # as it should look: red on top,
    pixels[:, :4, 1] = 255  # green on the left
    for orientation in range(1, 9):
        stored = Image.fromarray(pixels)
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # inverse turns, as PIL numbers them
        if undo is not None:
            stored = stored.transpose(Image.Transpose(undo))
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(folder / f"{orientation}.png", stored, exif=exif)
    dataset = load(folder)
    assert len(dataset) == 8
    for image in dataset.images:
        assert np.array_equal(image, pixels.transpose(2, 0, 1))


def test_the_central_square_is_kept(folder: Path) -> None:
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 255
    save(folder / "wide.png", pixels)
    save(folder / "tall.png", pixels.transpose(1, 0, 2))
    assert load(folder).images.min() == 255


def test_shrinking_is_antialiased(folder: Path) -> None:
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::2] = 255
    save(folder / "a.png", stripes)
    inner = only(folder)[:, 2:-2, 2:-2]
    assert inner.min() > 110
    assert inner.max() < 145


def test_damaged_metadata_do_not_matter_and_nothing_is_said(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    save(folder / "a.jpg", colour((90, 90, 90)), exif=exif)
    data = (folder / "a.jpg").read_bytes()
    at = data.index(b"Exif") + 14
    (folder / "a.jpg").write_bytes(data[:at] + b"\xff\x7f" + data[at + 2 :])
    assert only(folder)[:, 5, 5].tolist() == pytest.approx([90] * 3, abs=2)
    assert [str(warning.message) for warning in recwarn] == []


def test_large_jpegs_keep_their_colours(folder: Path) -> None:
    rng = np.random.default_rng(0)
    large = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((160, 160), Image.Resampling.BOX)
    save(folder / "a.jpg", large, quality=95, subsampling=0)
    exact = np.asarray(large.resize((16, 16), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(only(folder).transpose(1, 2, 0) - exact).mean() < 4


def test_images_smaller_than_the_resolution_are_refused(folder: Path, tmp_path: Path) -> None:
    for k in range(5):
        save(folder / f"fine{k}.png", colour((k, k, k), (20, 20)))
    save(folder / "small.png", colour((1, 1, 1), (40, 15)))
    save(folder / "smallest.png", colour((1, 1, 1), (12, 9)))
    spec = DataSpec(source="folder", path=str(folder))
    with pytest.raises(DataError, match="2 of 7 images are smaller than the resolution of 16 px") as caught:
        prepare(spec, resolution=16, cache_dir=tmp_path / "cache")
    assert "smallest.png, has 12x9" in caught.value.message
    assert "`resolution` to at most 9" in (caught.value.hint or "")
    assert [p for p in (tmp_path / "cache" / "datasets").iterdir() if p.is_dir()] == []
    assert len(prepare(spec, resolution=9, cache_dir=tmp_path / "cache")) == 7


def test_places_that_hold_no_images(folder: Path) -> None:
    with pytest.raises(DataError, match="no images in"):
        load(folder)
    (folder / "only.txt").write_text("")
    with pytest.raises(DataError, match="no images in"):
        load(folder)
    with pytest.raises(NotFound, match="there is no folder"):
        load(folder / "absent")
    with pytest.raises(DataError, match="expects a folder"):
        load(folder / "only.txt")


def test_nothing_but_broken_files(folder: Path) -> None:
    (folder / "a.png").write_text("broken")
    with pytest.raises(DataError, match=r"none of 1 images can be read; the first: a\.png: not an image"):
        load(folder)


def test_a_changed_folder_is_read_again(folder: Path) -> None:
    save(folder / "a.png", colour((1, 1, 1)))
    assert len(load(folder)) == 1
    save(folder / "b.png", colour((2, 2, 2)))
    assert len(load(folder)) == 2
    buffer = io.BytesIO()
    colour((99, 99, 99), (17, 17)).save(buffer, "PNG")
    (folder / "a.png").write_bytes(buffer.getvalue())
    assert load(folder).images[0].max() == 99


def test_links_to_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a.png", colour((1, 1, 1)))
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    dataset = load(folder)
    assert (len(dataset), dataset.label_names) == (1, ["linked"])


def test_links_that_lead_nowhere_and_names_that_are_no_text(folder: Path) -> None:
    (folder / "a.png").symlink_to(folder / "absent.png")
    save(folder / "b.png", colour((1, 1, 1)))
    os.rename(folder / "b.png", os.fsencode(folder) + b"/b\xff.png")
    os.mkfifo(folder / "c.png")
    dataset = load(folder)
    assert len(dataset) == 1
    assert dataset.skipped == [("a.png", "No such file or directory"), ("c.png", "not a regular file")]


def test_a_csv_gives_the_labels(folder: Path) -> None:
    for name in ("a", "b", "sub/c", "d"):
        save(folder / f"{name}.png", colour((1, 1, 1)))
    (folder / "labels.csv").write_text("file,label\nb.png,cat\n./a.png, dog\nsub\\c.png,cat\n", encoding="utf-8-sig")
    dataset = load(folder, labels="labels.csv")
    assert dataset.label_names == ["cat", "dog"]
    assert dataset.labels.tolist() == [1, 0, -1, 0]  # a, b, d, sub/c
    assert len(load(folder, labels="labels.csv", classes=["cat"])) == 2
    (folder / "labels.csv").write_text("b.png,dog\na.png,dog\n")
    assert load(folder, labels="labels.csv").labels.tolist() == [0, 0, -1, -1]


def test_all_mistakes_of_a_csv_at_once(folder: Path) -> None:
    save(folder / "cat1.png", colour((1, 1, 1)))
    (folder / "labels.csv").write_text("file,label\ncat1.png,cat\ncat2.png,cat\nonlyfile\ncat1.png,dog\n")
    with pytest.raises(SpecError) as caught:
        load(folder, labels="labels.csv")
    assert [(p.line, p.message.split(";")[0]) for p in caught.value.problems] == [
        (3, "there is no image cat2.png"),
        (4, "expected two columns, file and label"),
        (5, "cat1.png already has the label cat"),
    ]
    assert caught.value.problems[0].hint == 'did you mean "cat1.png"?'
    with pytest.raises(SpecError, match=r"there is no file absent\.csv"):
        load(folder, labels="absent.csv")
