"""What every data source promises, over the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlgan.data.dataset import Dataset, prepare
from tlgan.data.pack import write_parquet
from tlgan.data.source import NO_LABEL, Source, open_source
from tlgan.recipe import DataSpec
from tlgan.registry import SOURCES


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Something to read for the sources that need a path."""
    folder, shards = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("shards") / "packed"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        (folder / f"class{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"class{number % 3}" / f"{number}.png")
    write_parquet(Dataset.from_arrays(pixels.transpose(0, 3, 1, 2), np.arange(12) % 3), shards)
    return {"folder": str(folder), "parquet": str(shards)}


@pytest.fixture(scope="module", params=list(SOURCES))
def spec(request: pytest.FixtureRequest, places: dict[str, str]) -> DataSpec:
    name: str = request.param
    source = f"{name}:FakeData" if SOURCES.facts(name).get("argument") else name
    return DataSpec(source=source, path=places.get(name), crops=20)


@pytest.fixture(scope="module")
def source(spec: DataSpec) -> Source:
    return open_source(spec)


def some(source: Source) -> list[int]:
    return sorted({0, 1, len(source) // 2, len(source) - 1})


def test_reads_square_uint8_images_of_the_asked_size(source: Source) -> None:
    for index in some(source):
        for size in (8, 24, 32):
            image, label = source.read(index, size)
            assert image.dtype == np.uint8
            assert image.shape == (source.channels, size, size)
            assert type(label) is int
            assert label == NO_LABEL or 0 <= label < len(source.label_names)


def test_reading_is_repeatable_and_independent_of_order(source: Source, spec: DataSpec) -> None:
    other = open_source(spec)
    for index in reversed(some(source)):
        image, label = source.read(index, 16)
        again, same_label = other.read(index, 16)
        assert np.array_equal(image, again)
        assert label == same_label


def test_images_have_content_and_names(source: Source) -> None:
    images = [source.read(index, 16)[0] for index in some(source)]
    assert all(image.min() < image.max() for image in images)
    assert len({image.tobytes() for image in images}) > 1
    names = [source.name_of(index) for index in some(source)]
    assert len(set(names)) == len(names)


def test_label_names_are_distinct(source: Source) -> None:
    assert len(set(source.label_names)) == len(source.label_names)


def test_facts_of_the_table_hold(source: Source, spec: DataSpec) -> None:
    channels = SOURCES.facts((spec.source or "").partition(":")[0]).get("channels", source.channels)
    assert source.channels == channels


def test_the_fingerprint_is_stable(source: Source, spec: DataSpec) -> None:
    assert source.fingerprint() == open_source(spec).fingerprint()


def test_a_missing_path_is_refused_by_the_spec() -> None:
    for name in SOURCES:
        if SOURCES.facts(name).get("path"):
            with pytest.raises(ValueError, match=f"source {name} needs `path`"):
                DataSpec(source=name)


def test_prepared_data_survive_packing(spec: DataSpec, tmp_path: Path) -> None:
    dataset = prepare(spec.model_copy(update={"limit": 10}), resolution=16)
    assert len(dataset) == 10
    write_parquet(dataset, tmp_path / "packed")
    back = prepare(DataSpec(source="parquet", path=str(tmp_path / "packed")), resolution=16)
    assert back.digest == dataset.digest
