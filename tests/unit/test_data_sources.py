"""The sources that need no files: glyphs, digits, photos, and torchvision's datasets."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision

from tlgan.data.dataset import Dataset, prepare
from tlgan.data.glyphs import font_files, glyphs_of, render, script_of
from tlgan.errors import DataError
from tlgan.recipe import DataSpec


@pytest.fixture(scope="module")
def glyphs() -> Dataset:
    return prepare(DataSpec(source="glyphs"), resolution=16)


def test_there_are_many_glyphs_of_many_scripts(glyphs: Dataset) -> None:
    counts = glyphs.facts["labels"]
    assert len(glyphs) > 25_000
    assert {"LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW", "GEORGIAN", "ARMENIAN", "CANADIAN", "DIGIT"} <= set(
        counts
    )
    assert counts["LATIN"] > counts["GREEK"] > counts["CYRILLIC"] > 2000
    assert counts["DIGIT"] >= 400


def test_glyphs_are_white_on_black_centred_with_a_margin(glyphs: Dataset) -> None:
    images = glyphs.images
    assert images[:, :, [0, -1], :].max() == 0
    assert images[:, :, :, [0, -1]].max() == 0
    ink = images > 0
    rows, columns = ink.any((1, 3)), ink.any((1, 2))
    height, width = rows.sum(1), columns.sum(1)
    assert (np.maximum(height, width) >= 10).mean() > 0.98  # the longer side fills the square
    for extent in (rows, columns):
        before, after = extent.argmax(1), extent[:, ::-1].argmax(1)
        assert (np.abs(before - after) <= 2).mean() > 0.95
    assert images.max((1, 2, 3)).min() > 60  # none is blank or nearly so
    grey = ((images > 0) & (images < 255)).mean()
    assert grey > 0.1  # antialiased


def test_a_glyph_at_a_large_size_shrinks_to_the_glyph_at_a_small_size() -> None:
    font = next(path for path in font_files() if path.name == "DejaVuSans.ttf")
    for character in "Rg,":
        small = render(font, character, 32).reshape(16, 2, 16, 2).mean((1, 3))
        large = render(font, character, 128).reshape(16, 8, 16, 8).mean((1, 3))
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.95


def test_no_outline_is_repeated_within_a_font() -> None:
    font = next(path for path in font_files() if path.name == "DejaVuSans.ttf")
    characters = {glyph.character for glyph in glyphs_of(font)}
    assert {"A", "a", "0", "Ω"} <= characters
    assert "\u0391" not in characters  # Greek Alpha is drawn as A
    assert not {" ", "!", "+"} & characters


@pytest.mark.parametrize(
    ("character", "script"),
    [
        *(("a", "LATIN"), ("ª", "LATIN"), ("𝐀", "LATIN"), ("ﬁ", "LATIN"), ("Ⅎ", "LATIN")),
        *(("µ", "GREEK"), ("ж", "CYRILLIC"), ("ﺵ", "ARABIC"), ("ʹ", "MODIFIER")),
        *(("7", "DIGIT"), ("٣", "DIGIT"), ("𝟗", "DIGIT")),
    ],
)
def test_script_of(character: str, script: str) -> None:
    assert script_of(character) == script


def test_digits_look_like_their_originals() -> None:
    from sklearn.datasets import load_digits

    dataset = prepare(DataSpec(source="digits"), resolution=32)
    bunch = load_digits()
    assert dataset.labels.tolist() == bunch.target.tolist()
    cells = dataset.images[:, 0, 2:30, 2:30].astype(float)
    cells = cells.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(len(dataset), -1)
    original = np.array([np.asarray(image) for image in bunch.images])
    pooled = (original[:, :-1, :-1] + original[:, 1:, 1:]).reshape(len(dataset), -1)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(cells[:200], pooled[:200], strict=True)]
    assert np.mean(correlation) > 0.85
    assert dataset.images.min() == 0
    assert (dataset.images.max((1, 2, 3)) == 255).mean() > 0.99


def test_photos_are_seeded_crops_of_two_photographs() -> None:
    one, same, other = (
        prepare(DataSpec(source="photos", crops=60, seed=seed, limit=limit), resolution=32)
        for seed, limit in ((0, None), (0, 60), (1, None))
    )
    assert one.images.shape == (60, 3, 32, 32)
    assert one.digest == same.digest != other.digest
    assert one.label_names == ["china", "flower"]
    assert np.bincount(one.labels).tolist() == [30, 30]
    assert len({image.tobytes() for image in one.images}) > 55
    more = prepare(DataSpec(source="photos", crops=80, seed=0), resolution=32)
    assert np.array_equal(more.images[:60], one.images)


def test_photos_are_not_enlarged() -> None:
    with pytest.raises(
        DataError, match=r"smaller than the resolution of 512 px; the smallest, china\.jpg, has 640x427"
    ):
        prepare(DataSpec(source="photos", crops=2), resolution=512)


def write_mnist(root: Path, train: int, test: int) -> np.ndarray:
    """Files in MNIST's format. Returns the training images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    for name, part in (("train", images[:train]), ("t10k", images[train:])):
        head = struct.pack(">IIII", 0x803, len(part), 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + part.tobytes())
        labels = (np.arange(len(part)) % 10).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(part)) + labels.tobytes())
        with gzip.open(raw / f"{name}.gz", "wb") as file:
            file.write(b"")
    return images[:train]


def test_torchvision_dataset_from_its_files(tmp_path: Path) -> None:
    images = write_mnist(tmp_path, train=30, test=20)
    train, test, both = (
        prepare(DataSpec(source="torchvision:MNIST", path=str(tmp_path), split=split), resolution=28)
        for split in ("train", "test", "all")
    )
    assert np.array_equal(train.images[:, 0], images)  # the official parts, unsplit
    assert (len(train), len(test), len(both)) == (30, 20, 50)
    assert train.labels.tolist() == [k % 10 for k in range(30)]
    assert train.label_names[3] == "3 - three"
    enlarged = prepare(DataSpec(source="torchvision:MNIST", path=str(tmp_path)), resolution=32)
    assert enlarged.images.shape == (50, 1, 32, 32)


def test_torchvision_dataset_that_needs_no_files() -> None:
    dataset = prepare(DataSpec(source="torchvision:FakeData", split="test", limit=40), resolution=16)
    assert dataset.images.shape == (40, 3, 16, 16)
    expected = int(torchvision.datasets.FakeData()[0][1])
    whole = prepare(DataSpec(source="torchvision:FakeData", limit=1000), resolution=16)
    assert whole.labels[0] == expected


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"torchvision:CIFAR10 can't be opened in .*: Dataset not found") as caught:
        prepare(DataSpec(source="torchvision:CIFAR10", path=str(tmp_path)), resolution=32)
    assert "`path`" in (caught.value.hint or "")
    assert "`download: true`" in (caught.value.hint or "")


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = "http://127.0.0.1:9/"
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [unreachable])
    with pytest.raises(DataError, match=r"torchvision:MNIST can't be downloaded to") as caught:
        prepare(DataSpec(source="torchvision:MNIST", path=str(tmp_path), download=True), resolution=32)
    assert "check the network" in (caught.value.hint or "")


def test_an_unknown_torchvision_dataset() -> None:
    with pytest.raises(DataError, match='has no dataset "cifar_10"') as caught:
        prepare(DataSpec(source="torchvision:cifar_10"), resolution=32)
    assert caught.value.hint == 'did you mean "torchvision:CIFAR10"?'
