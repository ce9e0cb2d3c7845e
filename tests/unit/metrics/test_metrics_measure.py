"""measure(): one pass over a stream, the protocol in every value, and the cache of reference features."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import Pixels, random_images

from tlgan.data import Dataset, cache_root
from tlgan.errors import DataError, SpecError
from tlgan.metrics.features import extract, rechunk
from tlgan.metrics.measure import measure, reference_features

ALL = ["fid", "kid", "precision", "recall"]


def test_values_come_in_order_with_the_whole_protocol(pixels, reference, tmp_path) -> None:
    values = measure(
        ["recall", "kid"], [random_images(64, 1)], reference, pixels, seed=5, ema=False, cache_dir=tmp_path
    )
    assert [v.name for v in values] == ["recall", "kid"]
    assert json.loads(json.dumps(values[1].protocol)) == {
        "extractor": "pixels",
        "extractor_digest": pixels.digest,
        "resize": "none",
        "image": "1x4x4",
        "quantised": "uint8",
        "reference": reference.digest,
        "samples_real": 600,
        "samples_fake": 64,
        "seed": 5,
        "ema": False,
        "estimator": "mmd2_unbiased_all_pairs",
        "kernel": "(x.y/d+1)^3",
        "dtype": "float64",
        "protocol": "kid64_small",
    }


def test_the_numbers_are_those_of_the_metrics(pixels, reference, tmp_path) -> None:
    from tlgan.metrics.kernel import kid

    fake = random_images(50, 2)
    (value,) = measure(["kid"], [fake], reference, pixels, seed=0, cache_dir=tmp_path)
    real = reference.images.reshape(600, 16).astype(np.float32) / np.float32(255)
    assert value.value == kid(real, fake.flatten(1).float().numpy() / np.float32(255))


def test_values_do_not_depend_on_how_the_stream_is_cut(pixels, reference, tmp_path) -> None:
    fake = random_images(300, 3)
    cuts = [[fake], fake.split(7), fake.split([299, 1]), iter(fake.split(128))]
    results = [measure(ALL, cut, reference, pixels, seed=0, cache_dir=tmp_path) for cut in cuts]
    assert all(r == results[0] for r in results)


def test_generated_features_are_computed_once_for_all_metrics(pixels, reference, tmp_path) -> None:
    reference_features(reference, pixels, tmp_path)
    pixels.calls.clear()
    measure(ALL, random_images(300, 4).split(50), reference, pixels, seed=0, cache_dir=tmp_path)
    assert pixels.calls == [256, 44]


def test_rechunk_keeps_every_image_in_order() -> None:
    images = random_images(23, 5)
    chunks = list(rechunk(images.split(4), size=10))
    assert [len(c) for c in chunks] == [10, 10, 3]
    assert torch.equal(torch.cat(chunks), images)
    assert list(rechunk([images[:0]], size=10)) == []


def test_reference_features_are_cached_by_dataset_and_extractor(pixels, reference, tmp_path) -> None:
    first = reference_features(reference, pixels, tmp_path)
    assert pixels.calls == [256, 256, 88]
    again = Pixels()
    np.testing.assert_array_equal(reference_features(reference, again, tmp_path), first)
    assert again.calls == []
    other_weights = Pixels(scale=100.0)
    assert not np.array_equal(reference_features(reference, other_weights, tmp_path), first)
    other_images = Dataset.from_arrays(random_images(600, seed=9).numpy())
    assert not np.array_equal(reference_features(other_images, pixels, tmp_path), first)
    files = list((tmp_path / "features").iterdir())
    assert len(files) == 3
    assert all(f.suffix == ".npy" and not f.name.startswith(".") for f in files)


def test_the_default_cache_is_tlgans(pixels, reference, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    reference_features(reference, pixels)
    assert len(list((tmp_path / "features").glob("*.npy"))) == 1


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"not an array"])
def test_a_damaged_cache_file_is_made_again(pixels, reference, tmp_path, damage: bytes, caplog) -> None:
    first = reference_features(reference, pixels, tmp_path)
    (file,) = (tmp_path / "features").iterdir()
    file.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(reference_features(reference, pixels, tmp_path), first)
    assert str(file) in caplog.text
    np.testing.assert_array_equal(np.load(file), first)


def test_pickles_and_wrong_counts_in_the_cache_are_not_believed(pixels, reference, tmp_path) -> None:
    first = reference_features(reference, pixels, tmp_path)
    (file,) = (tmp_path / "features").iterdir()
    for planted in (np.array([{"a": 1}], dtype=object), first[:10], first.astype(np.float64)):
        np.save(file, planted, allow_pickle=True)
        np.testing.assert_array_equal(reference_features(reference, pixels, tmp_path), first)


def test_a_cache_that_cannot_be_written_is_a_warning(pixels, reference, tmp_path: Path, caplog) -> None:
    (tmp_path / "features").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert reference_features(reference, pixels, tmp_path).shape == (600, 16)
    assert "not cached" in caplog.text


def test_mistakes_are_said_clearly(pixels, reference, tmp_path) -> None:
    def take(images, names=("kid",)):
        return measure(list(names), images, reference, pixels, seed=0, cache_dir=tmp_path)

    with pytest.raises(DataError, match="no generated images"):
        take([])
    with pytest.raises(DataError, match="needs at least 4 samples; received 3"):
        take([random_images(3, 0)], names=["precision"])
    with pytest.raises(DataError, match=r"batch 1: expected uint8 .* received float32 \[2, 1, 4, 4\]"):
        take([random_images(2, 0), torch.zeros(2, 1, 4, 4)])
    with pytest.raises(DataError, match=r"generated images are \[3, 4, 4\], the reference is \[1, 4, 4\]"):
        take([random_images(5, 0, channels=3)])
    with pytest.raises(SpecError, match=r'unknown metric "kit".*did you mean "kid"'):
        take([random_images(5, 0)], names=["kit"])
    with pytest.raises(DataError, match="reference dataset is empty"):
        measure(["kid"], [random_images(5, 0)], Dataset.from_arrays(np.zeros((0, 1, 4, 4), np.uint8)), pixels, seed=0)


def test_features_that_are_not_finite_are_refused(reference, tmp_path) -> None:
    class Broken(Pixels):
        def __call__(self, images):
            return super().__call__(images).log()  # black pixels give -inf

    with pytest.raises(DataError, match="NaN or infinity"):
        measure(["fid"], [torch.zeros(8, 1, 4, 4, dtype=torch.uint8)], reference, Broken(), seed=0, cache_dir=tmp_path)


def test_extract_gives_float32_rows(pixels) -> None:
    features = extract(pixels, [random_images(5, 1)])
    assert features.shape == (5, 16)
    assert features.dtype == np.float32
