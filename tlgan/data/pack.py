"""A dataset as sharded Parquet: lossless PNG in a column `image`, with `label` and `label_name` where there are labels.

    data-00000-of-00003.parquet ...      readable by pyarrow, pandas, DuckDB and Hugging Face datasets

The schema's metadata note format, count, resolution, channels, label names and digest, so reading the shards back gives
the same dataset, and a missing shard is noticed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tlgan.canonical import canonical_json
from tlgan.data.dataset import Dataset
from tlgan.data.parquet import METADATA_KEY, SCHEMA_VERSION
from tlgan.data.source import UInt8Array
from tlgan.errors import DataError

SHARD_BYTES = 64 << 20
ROWS = 1024  # images in a row group: what a reader holds in memory at once


def write_parquet(dataset: Dataset, dest: Path, shard_bytes: int | None = None) -> dict[str, Any]:
    """Writes shards of about `shard_bytes` into the directory `dest` and returns the facts to publish with them.

    `shard_bytes` defaults to `SHARD_BYTES`. `dest` must be new or empty. Raises `DataError` otherwise.
    """
    shard_bytes = SHARD_BYTES if shard_bytes is None else shard_bytes
    dest.mkdir(parents=True, exist_ok=True)
    if any(dest.iterdir()):
        raise DataError(f"{dest} is not empty", hint="choose a new directory for the shards")
    schema = _schema(dataset)
    written: list[Path] = []
    rows: list[int] = []
    writer: pq.ParquetWriter | None = None
    size = 0
    try:
        for table in _tables(dataset, schema):
            if writer is None or size + table.nbytes > shard_bytes:
                if writer is not None:
                    writer.close()
                written.append(dest / f".shard-{len(written):05d}.tmp")
                rows.append(0)
                writer, size = pq.ParquetWriter(written[-1], schema, compression=_COMPRESSION), 0
            writer.write_table(table)
            size += table.nbytes
            rows[-1] += len(table)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    finally:
        if writer is not None:
            writer.close()
    for number, path in enumerate(written):
        path.rename(dest / f"data-{number:05d}-of-{len(written):05d}.parquet")
    return {**dataset.facts, "shards": len(written), "shard_rows": rows}


_COMPRESSION = {"image": "NONE", "label": "ZSTD", "label_name": "ZSTD"}


def _schema(dataset: Dataset) -> pa.Schema:
    fields = [pa.field("image", pa.binary(), nullable=False)]
    if dataset.label_names:
        fields += [pa.field("label", pa.int64()), pa.field("label_name", pa.string())]
    noted = {
        "format": SCHEMA_VERSION,
        "count": len(dataset),
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "label_names": dataset.label_names,
        "digest": dataset.digest,
    }
    return pa.schema(fields, metadata={METADATA_KEY: canonical_json(noted)})


def _tables(dataset: Dataset, schema: pa.Schema) -> Iterator[pa.Table]:
    """Row groups."""
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(dataset), ROWS):
            labels = dataset.labels[start : start + ROWS].tolist()
            columns: dict[str, list[Any]] = {"image": list(pool.map(_png, dataset.images[start : start + ROWS]))}
            if dataset.label_names:
                columns["label"] = [None if label < 0 else label for label in labels]
                columns["label_name"] = [None if label < 0 else dataset.label_names[label] for label in labels]
            yield pa.table(columns, schema=schema)


def _png(x_chw: UInt8Array) -> bytes:
    pixels = x_chw[0] if len(x_chw) == 1 else x_chw.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
