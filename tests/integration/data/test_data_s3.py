"""The Parquet source on S3 servers: packed shards, foreign files, and what is said when something is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from servers import S3Server

from tlgan.data.dataset import Dataset, prepare
from tlgan.data.pack import write_parquet
from tlgan.errors import BackendError, DataError, NotFound
from tlgan.recipe import DataSpec


@pytest.fixture(params=["moto_server", "rclone_server"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    chosen: S3Server = request.getfixturevalue(request.param)
    chosen.use(monkeypatch)
    return chosen


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Dataset, list[Path]]:
    dataset = prepare(DataSpec(source="photos", crops=2500), resolution=16)
    write_parquet(dataset, tmp_path / "packed", shard_bytes=1 << 20)
    return dataset, sorted((tmp_path / "packed").iterdir())


def load(where: str) -> Dataset:
    return prepare(DataSpec(source="parquet", path=where), resolution=16)


def test_packed_shards_round_trip_and_the_environment_stays(
    server: S3Server, shards: tuple[Dataset, list[Path]], tmp_path: Path
) -> None:
    dataset, files = shards
    assert len(files) > 1
    bucket = server.new_bucket()
    for file in files:
        server.client().upload_file(str(file), bucket, f"deep/er/{file.name}")
    before = dict(os.environ)
    spec = DataSpec(source="parquet", path=f"s3://{bucket}/deep")
    back = prepare(spec, resolution=16, cache_dir=tmp_path / "cache")
    assert back.digest == dataset.digest
    assert dict(os.environ) == before
    with pytest.raises(DataError, match=rf"holds \d+ of {len(dataset)} packed images"):
        load(f"s3://{bucket}/deep/er/{files[0].name}")


def test_patterns_and_missing_places(server: S3Server, shards: tuple[Dataset, list[Path]]) -> None:
    dataset, files = shards
    bucket = server.new_bucket()
    for file in files:
        server.client().upload_file(str(file), bucket, f"a/{file.name}")
    server.client().put_object(Bucket=bucket, Key="a/notes.txt", Body=b"x")
    assert load(f"s3://{bucket}/a/data-*.parquet").digest == dataset.digest
    with pytest.raises(DataError, match=r"no \.parquet files"):
        load(f"s3://{bucket}/a/other-*.parquet")
    with pytest.raises(NotFound, match="there is nothing at"):
        load(f"s3://{bucket}/absent")
    with pytest.raises(NotFound):
        load("s3://no-such-bucket-here/a")


def test_an_object_that_is_no_parquet(server: S3Server) -> None:
    bucket = server.new_bucket()
    server.client().put_object(Bucket=bucket, Key="a/x.parquet", Body=b"text" * 100)
    with pytest.raises(DataError, match=r"x\.parquet is no Parquet file"):
        load(f"s3://{bucket}/a")


def test_refused_credentials(rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = rclone_server.new_bucket()
    rclone_server.client().put_object(Bucket=bucket, Key="a/x.parquet", Body=b"x")
    rclone_server.use(monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BackendError, match="can't be read") as caught:
        load(f"s3://{bucket}/a")
    assert "AWS_" in (caught.value.hint or "")


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    S3Server("none", "http://127.0.0.1:9").use(monkeypatch)
    with pytest.raises(BackendError, match="can't be read") as caught:
        load("s3://bucket/a")
    assert "TLGAN_S3_ENDPOINT" in (caught.value.hint or "")
