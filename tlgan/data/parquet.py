"""Images in Parquet files: shards written by `tlgan data pack`, and foreign files with a column of encoded images.

A foreign image column is binary, or a struct with a binary field `bytes` (as Hugging Face datasets writes it). A column
`label`, `labels` or `class` of whole numbers or text gives the labels; names of numbers are taken from Hugging Face's
schema metadata.
"""

from __future__ import annotations

import bisect
import json
import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tlgan.data.image import ALPHA, decode, is_grey
from tlgan.data.location import Remote, explained, find_files
from tlgan.data.source import NO_LABEL, BrokenImage, UInt8Array
from tlgan.errors import DataError
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution

METADATA_KEY = b"tlgan"
SCHEMA_VERSION = 1
IMAGE_COLUMNS = ("image", "img", "images", "picture", "png", "jpg", "jpeg", "webp")
LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "category")
LOOKED_AT = 64  # images whose headers decide whether foreign images are grey
HELD = 3  # row groups kept in memory


class _Group(NamedTuple):
    """A row group: rows `[start, end)` of the whole."""

    file: int
    number: int
    start: int
    end: int


class ParquetSource:
    """Rows in the order of the files' paths. Own shards give back the packed images byte for byte."""

    parallel = True
    own_split = False
    whole = True
    """A packed dataset must have all its shards."""

    def __init__(self, spec: DataSpec) -> None:
        self.where = spec.path or ""
        self._alpha = spec.channels if spec.channels in ALPHA else None
        self._system, self._files = find_files(self.where)
        self._schema, self.groups = self._open_all()
        self.packed = packed_facts(self._schema)
        self._image = "image" if self.packed else image_column(self._schema, self.where)
        self._label = next((name for name in LABEL_COLUMNS if name in self._schema.names), None)
        self._held: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()
        if self.whole and self.packed and self.packed["count"] != len(self):
            raise DataError(
                f"{self.where} holds {len(self)} of {self.packed['count']} packed images",
                hint="a shard is missing or foreign; copy all of them",
            )

    def _open_all(self) -> tuple[pa.Schema, list[_Group]]:
        schema, groups, start = None, [], 0
        for number, remote in enumerate(self._files):
            file = self._open(remote)
            if schema is None:
                schema = file.schema_arrow
            elif not file.schema_arrow.equals(schema) or packed_facts(file.schema_arrow) != packed_facts(schema):
                hint = "read one dataset at a time: narrow `path`"
                raise DataError(f"{remote.path} has another schema than {self._files[0].path}", hint=hint)
            for group in range(file.metadata.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                groups.append(_Group(number, group, start, end))
                start = end
        return schema, groups

    def _open(self, remote: Remote) -> pq.ParquetFile:
        try:
            with explained(remote.path):
                return pq.ParquetFile(self._system.open_input_file(remote.path))
        except pa.ArrowInvalid as error:
            raise DataError(f"{remote.path} is no Parquet file: {str(error).splitlines()[0]}") from None

    def _column(self, group: _Group, name: str) -> pa.ChunkedArray:
        remote = self._files[group.file]
        try:
            with explained(remote.path):
                return self._open(remote).read_row_group(group.number, columns=[name]).column(name)
        except pa.ArrowInvalid as error:
            raise DataError(f"{remote.path} is damaged: {str(error).splitlines()[0]}") from None

    def _encoded(self, index: int) -> bytes | None:
        """The encoded image in row `index`."""
        position = self._position(index)
        with self._lock:
            if position not in self._held:
                column = self._column(self.groups[position], self._image)
                is_struct = pa.types.is_struct(column.type)
                self._held[position] = pc.struct_field(column, "bytes") if is_struct else column
                if len(self._held) > HELD:
                    self._held.popitem(last=False)
            column = self._held[position]
        value: bytes | None = column[index - self.groups[position].start].as_py()
        return value

    @cached_property
    def channels(self) -> int:
        if self.packed:
            return int(self.packed["channels"])
        if self._alpha:
            return self._alpha
        heads = (self._encoded(index) for index in range(min(LOOKED_AT, len(self))))
        return 3 if any(head is not None and is_grey(head) is False for head in heads) else 1

    @cached_property
    def _raw_labels(self) -> list[Any]:
        if self._label is None:
            return [None] * len(self)
        return [value for group in self.groups for value in self._column(group, self._label).to_pylist()]

    @cached_property
    def label_names(self) -> list[str]:
        if self.packed:
            return list(self.packed["label_names"])
        named = hugging_face_names(self._schema, self._label)
        return named or [str(value) for value in self._distinct]

    @cached_property
    def _distinct(self) -> list[Any]:
        values = {value for value in self._raw_labels if isinstance(value, str) or _is_number(value)}
        return sorted(values, key=lambda value: (isinstance(value, str), value))

    @cached_property
    def _number_of(self) -> dict[Any, int]:
        if self.packed or hugging_face_names(self._schema, self._label):
            return {number: number for number in range(len(self.label_names))}
        return {value: number for number, value in enumerate(self._distinct)}

    def __len__(self) -> int:
        return self.groups[-1].end if self.groups else 0

    def name_of(self, index: int) -> str:
        group = self.groups[self._position(index)]
        first = next(other.start for other in self.groups if other.file == group.file)
        return f"row {index - first} of {self._files[group.file].path}"

    def _position(self, index: int) -> int:
        """Number of the row group that holds row `index`."""
        return bisect.bisect_right(self.groups, index, key=lambda group: group.end)

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        name, encoded = self.name_of(index), self._encoded(index)
        if encoded is None:
            raise BrokenImage(name, "the row holds no image bytes")
        label = self._number_of.get(self._raw_labels[index], NO_LABEL)
        return decode(encoded, name, size, self.channels), label

    def fingerprint(self) -> dict[str, Any]:
        if self.packed:
            return {"content": self.packed}
        return {"files": [list(remote) for remote in self._files], "where": self.where}


def packed_facts(schema: pa.Schema) -> dict[str, Any] | None:
    """What `write_parquet` noted: format, count, resolution, channels, label_names, digest. None in foreign files."""
    noted = (schema.metadata or {}).get(METADATA_KEY)
    if noted is None:
        return None
    facts: dict[str, Any] = json.loads(noted)
    if facts["format"] > SCHEMA_VERSION:
        raise DataError(f"packed in format {facts['format']}; this tlgan reads up to {SCHEMA_VERSION}", hint="upgrade")
    return facts


def image_column(schema: pa.Schema, where: str) -> str:
    """The column that holds encoded images."""
    candidates = [field.name for field in schema if _holds_bytes(field.type)]
    preferred = [name for name in IMAGE_COLUMNS if name in candidates] or candidates
    if len(preferred) == 1 or (preferred and preferred[0] in IMAGE_COLUMNS):
        return preferred[0]
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    found = f"several columns of bytes ({', '.join(candidates)})" if candidates else "no column of image bytes"
    hint = "name the column of encoded images `image`, binary or struct<bytes, path>"
    raise DataError(f"{where} has {found}; its columns: {columns}", hint=hint)


def hugging_face_names(schema: pa.Schema, column: str | None) -> list[str]:
    """Class names from Hugging Face's schema metadata, or none."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if not noted or column is None:
        return []
    feature = json.loads(noted).get("info", {}).get("features", {}).get(column, {})
    return [str(name) for name in feature.get("names", [])] if isinstance(feature, dict) else []


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
