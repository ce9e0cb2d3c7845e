"""Where Parquet files lie: a file, a folder or a glob, on this machine or under `s3://bucket/prefix`.

For S3 the usual `AWS_*` variables hold. `TLGAN_S3_ENDPOINT`, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` name a server
other than AWS.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs

from tlgan.errors import BackendError, DataError, NotFound

# Older servers refuse the checksum trailers of new clients, and some answer a range with the whole object's sum.
_COMPATIBLE = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
ENDPOINTS = ("TLGAN_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_environment = threading.Lock()


class Remote(NamedTuple):
    path: str
    size: int
    modified_ns: int


def find_files(where: str, suffix: str = ".parquet") -> tuple[fs.FileSystem, list[Remote]]:
    """The filesystem and the files at `where`, sorted by path; folders are searched at any depth.

    Raises `NotFound` when there is no such place, `DataError` when it holds no such file, `BackendError` when the
    server can't be reached or refuses the credentials.
    """
    system, path = _open(where)
    pattern = path if any(c in path for c in "*?[") else None
    base = (
        path if pattern is None else pattern[: next(i for i, c in enumerate(pattern) if c in "*?[")].rpartition("/")[0]
    )
    with explained(where):
        root = system.get_file_info(base)
        if root.type == fs.FileType.NotFound:
            raise NotFound(f"there is nothing at {where}", hint="check data.path")
        if root.type == fs.FileType.File:
            found = [root]
        else:
            found = [i for i in system.get_file_info(fs.FileSelector(base, recursive=True)) if _wanted(i, base, suffix)]
    if pattern is not None:
        found = [info for info in found if fnmatch.fnmatchcase(info.path, pattern)]
    if not found:
        raise DataError(
            f"no {suffix} files at {where}", hint="expected a file, a folder or a pattern such as dir/*.parquet"
        )
    return system, sorted(Remote(info.path, info.size, info.mtime_ns or 0) for info in found)


def _wanted(info: Any, base: str, suffix: str) -> bool:
    inside = info.path[len(base) :]
    return bool(info.is_file and info.path.endswith(suffix) and "/." not in inside and "/_" not in inside)


def _open(where: str) -> tuple[fs.FileSystem, str]:
    if not where.startswith("s3://"):
        if "://" in where and not where.startswith("file://"):
            raise DataError(f"{where}: expected a path or s3://bucket/prefix", hint="other stores are not supported")
        return fs.LocalFileSystem(), str(Path(where.removeprefix("file://")).expanduser().absolute())
    path = where.removeprefix("s3://").rstrip("/")
    if not path:
        raise DataError(f"{where} names no bucket", hint="expected s3://bucket/prefix")
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    options: dict[str, Any] = {"connect_timeout": 10, "request_timeout": 60}
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https", "region": region}
    with _lent(_COMPATIBLE):
        return fs.S3FileSystem(retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3), **options), path


@contextlib.contextmanager
def _lent(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for the time in which a client reads them, unless the person has set them."""
    with _environment:
        added = [name for name in variables if name not in os.environ]
        os.environ.update({name: variables[name] for name in added})
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"there is nothing at {where}", hint="check data.path") from None
    except PermissionError as error:
        raise BackendError(f"{where} can't be read: {error}", hint="check the permissions or AWS_* variables") from None
    except OSError as error:
        hint = "check TLGAN_S3_ENDPOINT, the network and the AWS_* variables" if where.startswith("s3://") else None
        raise BackendError(f"{where} can't be read: {error}", hint=hint) from None
