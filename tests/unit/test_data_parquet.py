"""Packing to Parquet and reading it back, and Parquet that others wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlgan.data.dataset import Dataset, prepare
from tlgan.data.pack import write_parquet
from tlgan.errors import DataError, IntegrityError, NotFound
from tlgan.recipe import DataSpec


def png(value: int, size: int = 16, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value if mode == "L" else (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def load(path: Path | str, **fields: object) -> Dataset:
    spec = DataSpec(source="parquet", path=str(path), **fields)  # type: ignore[arg-type]
    return prepare(spec, resolution=16)


@pytest.mark.parametrize(
    "spec", [DataSpec(source="digits", limit=300), DataSpec(source="photos", crops=40), DataSpec(source="digits")]
)
def test_shards_give_back_the_same_dataset(spec: DataSpec, tmp_path: Path) -> None:
    dataset = prepare(spec, resolution=16)
    facts = write_parquet(dataset, tmp_path / "packed", shard_bytes=50_000)
    back = load(tmp_path / "packed")
    assert back.digest == dataset.digest == facts["digest"]
    assert np.array_equal(back.images, dataset.images)
    assert np.array_equal(back.labels, dataset.labels)
    assert back.label_names == dataset.label_names
    assert len(list((tmp_path / "packed").iterdir())) == facts["shards"]


def test_a_dataset_without_labels_round_trips(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)
    dataset = Dataset.from_arrays(images)
    write_parquet(dataset, tmp_path / "packed")
    back = load(tmp_path / "packed")
    assert back.digest == dataset.digest
    assert back.labels.tolist() == [-1] * 5


def test_the_size_of_shards_is_bounded_and_packing_repeats_byte_for_byte(tmp_path: Path) -> None:
    dataset = prepare(DataSpec(source="photos", crops=3000), resolution=16)
    facts = write_parquet(dataset, tmp_path / "one", shard_bytes=1 << 20)
    write_parquet(dataset, tmp_path / "two", shard_bytes=1 << 20)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == facts["shards"] > 1
    assert files[0].name == f"data-00000-of-{len(files):05d}.parquet"
    for file in files:
        assert file.stat().st_size < 1.2 * (1 << 20)
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_shards_are_plain_parquet(tmp_path: Path) -> None:
    dataset = prepare(DataSpec(source="digits", limit=3), resolution=16)
    write_parquet(dataset, tmp_path / "packed")
    table = pq.read_table(tmp_path / "packed")
    assert table.column_names == ["image", "label", "label_name"]
    assert table["label_name"].to_pylist() == [str(d) for d in dataset.labels]
    picture = Image.open(io.BytesIO(table["image"][0].as_py()))
    assert np.array_equal(np.asarray(picture), dataset.images[0, 0])
    noted = json.loads(table.schema.metadata[b"tlgan"])
    assert (noted["count"], noted["resolution"], noted["channels"]) == (3, 16, 1)


def test_a_dataset_artifact_is_read_from_where_it_was_pulled_to(tmp_path: Path) -> None:
    dataset = prepare(DataSpec(source="digits", limit=30), resolution=16)
    write_parquet(dataset, tmp_path / "packed")
    spec = DataSpec(artifact="digits:latest", classes=["1", "2"])
    some = prepare(spec, resolution=16, artifact_path=tmp_path / "packed")
    assert some.label_names == ["1", "2"]
    smaller = prepare(DataSpec(artifact="digits:latest"), resolution=8, artifact_path=tmp_path / "packed")
    assert smaller.images.shape == (30, 1, 8, 8)
    with pytest.raises(DataError, match="was not fetched"):
        prepare(spec, resolution=16)


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    dataset = prepare(DataSpec(source="photos", crops=3000), resolution=16)
    write_parquet(dataset, tmp_path / "packed", shard_bytes=1 << 20)
    max((tmp_path / "packed").iterdir()).unlink()
    with pytest.raises(DataError, match=r"holds \d+ of 3000 packed images"):
        load(tmp_path / "packed")


def test_exchanged_images_are_noticed(tmp_path: Path) -> None:
    dataset = prepare(DataSpec(source="digits", limit=20, seed=9), resolution=16)
    write_parquet(dataset, tmp_path / "packed")
    (file,) = (tmp_path / "packed").iterdir()
    table = pq.read_table(file)
    pq.write_table(table.take([*range(1, 20), 0]), file)
    with pytest.raises(IntegrityError, match="not the recorded"):
        load(tmp_path / "packed")


def test_packing_into_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(DataError, match="is not empty"):
        write_parquet(Dataset.from_arrays(np.zeros((1, 1, 8, 8), np.uint8)), tmp_path)


def hugging_face(path: Path) -> None:
    """As `datasets` writes it: struct<bytes, path>, class names in the schema's metadata."""
    rows = [{"bytes": png(10), "path": "a.png"}, {"bytes": png(20), "path": None}, {"bytes": None, "path": "c.png"}]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"image": rows, "label": pa.array([1, -1, 0])})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_hugging_face_files(tmp_path: Path) -> None:
    hugging_face(tmp_path / "data" / "train-00000.parquet")
    dataset = load(tmp_path / "data")
    assert dataset.images[:, 0, 0, 0].tolist() == [10, 20]
    assert dataset.label_names == ["cat", "dog"]
    assert dataset.labels.tolist() == [1, -1]
    assert dataset.skipped == [(f"row 2 of {tmp_path}/data/train-00000.parquet", "the row holds no image bytes")]


def test_a_file_a_pattern_and_a_folder(tmp_path: Path) -> None:
    for number in range(3):
        table = pa.table({"img": [png(number, mode="L")] * 2, "label": ["b", "a"], "note": ["x", "y"]})
        (tmp_path / "deep").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "deep" / f"part{number}.parquet", row_group_size=1)
    (tmp_path / "deep" / "_SUCCESS").touch()
    assert len(load(tmp_path)) == 6
    one = load(tmp_path / "deep" / "part1.parquet")
    assert one.channels == 1
    assert one.images[:, 0, 0, 0].tolist() == [1, 1]
    assert [one.label_names[label] for label in one.labels] == ["b", "a"]
    some = load(f"{tmp_path}/deep/part[02].parquet")
    assert some.images[:, 0, 0, 0].tolist() == [0, 0, 2, 2]
    assert load(f"file://{tmp_path}/deep/part1.parquet").digest == one.digest


def test_a_rewritten_file_is_read_again(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "a.parquet")
    assert load(tmp_path).images.max() == 1
    pq.write_table(pa.table({"image": [png(7), png(8)]}), tmp_path / "a.parquet")
    assert load(tmp_path).images.max() == 8


def test_places_without_images(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is nothing at"):
        load(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no \.parquet files"):
        load(tmp_path)
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet file"):
        load(tmp_path)
    pq.write_table(pa.table({"text": ["a"], "number": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column of image bytes; its columns: text \(string\), number \(int64\)"):
        load(tmp_path)
    pq.write_table(pa.table({"one": [b"a"], "two": [b"b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"several columns of bytes \(one, two\)"):
        load(tmp_path)


def test_small_images_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(1, 16), png(2, 8)]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="1 of 2 images are smaller than the resolution of 16 px"):
        load(tmp_path)


def test_files_of_several_datasets_are_not_mixed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [png(1)], "label": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="another schema"):
        load(tmp_path)
