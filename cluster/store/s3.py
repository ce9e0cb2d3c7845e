"""A bucket as a store, on any server that speaks S3; `probe` knows what servers get wrong.

Conditions are used only where the probe saw them work. Checksum trailers are off (several servers refuse them);
Content-MD5 is always sent, and content is checked by sha256 at both ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from cluster.store.base import CHUNK, Capabilities, ObjectInfo, check_digest, scrub, too_large
from cluster.store.probe import Probe, Prober, body_arguments, etag_as
from cluster.store.s3_errors import BROKEN_STREAM, code_of, is_missing, s3_errors, status_of
from cluster.store.s3_upload import Multipart
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound
from tlgan.naming import check_path

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

MULTIPART_FROM = 16 << 20
ATTEMPTS = 3
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 30.0


def make_client(endpoint: str | None) -> S3Client:
    """Path-style addresses on a custom endpoint. Gives up on an unreachable one after about ten seconds."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=32,
        tcp_keepalive=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session()
    region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)


class S3Store:
    """The backend for `s3://bucket/prefix`. `endpoint` None means Amazon's. Can be pickled; the client is made anew."""

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{check_path(prefix)}/" if prefix else ""
        self.endpoint = endpoint
        with s3_errors(self.url, endpoint):
            try:
                self.client = make_client(endpoint)
            except ValueError as error:
                raise BackendError(f"store {self.url}: {scrub(error)}") from None
        self._multipart = Multipart(self.client, bucket)
        self._probe: Probe | None = None
        self._probing = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return S3Store, (self.bucket, self.prefix.rstrip("/"), self.endpoint)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def probe(self) -> Probe:
        """Seen once in a process."""
        with self._probing:
            if self._probe is None:
                with self._errors("probe"):
                    self._probe = Prober(self.client, self.bucket, self.prefix).run()
            return self._probe

    @property
    def capabilities(self) -> Capabilities:
        return self.probe.capabilities

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        with self._errors(key):
            if isinstance(data, Path):
                size = data.stat().st_size
                if size >= MULTIPART_FROM:
                    self._multipart.upload(self._key(key), data, size, sha256)
                    return
            body = data.read_bytes() if isinstance(data, Path) else data
            if sha256 is not None:
                check_digest(str(data) if isinstance(data, Path) else key, sha256, hashlib.sha256(body).hexdigest())
            self._put(key, body)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not self.probe.create_only:  # a best effort: two writers can still meet between the two calls
            if self.head(key) is not None:
                return False
            self.put(key, data)
            return True
        for _ in range(ATTEMPTS):
            try:
                with self._errors(key, through_conditions=True):
                    self._put(key, data, IfNoneMatch="*")
                    return True
            except ClientError as error:
                if status_of(error) == 412 or self.head(key) is not None:
                    return False
        raise BackendError(f"store {self.url}: {key} is contended; creating it met a conflict {ATTEMPTS} times")

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> str:
        probe = self.probe
        if not probe.capabilities.compare_and_swap or probe.etag_form is None:
            raise BackendError(f"store {self.url} can't compare and swap: {probe.capabilities.note}")
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": etag_as(probe.etag_form, expected)}
        try:
            with self._errors(key, through_conditions=True):
                return self._put(key, data, **condition)
        except (ClientError, NotFound):  # NotFound: it was deleted since `expected` was read
            raise Conflict(f"{key} in {self.url} was changed by somebody else") from None

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        return self.read(key, max_bytes=max_bytes)[0]

    def read(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        def once() -> tuple[bytes, str]:
            answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key))
            with contextlib.closing(answer["Body"]) as body:
                if max_bytes is not None and answer["ContentLength"] > max_bytes:
                    raise too_large(f"{key} in {self.url}", answer["ContentLength"], max_bytes)
                return body.read(), answer["ETag"]

        return self._again(key, once)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""

        def once() -> bytes:
            wanted = f"bytes={start}-{end - 1}"
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key), Range=wanted)
            except ClientError as error:
                if code_of(error) == "InvalidRange" or status_of(error) == 416:
                    return b""
                raise
            with contextlib.closing(answer["Body"]) as body:
                return body.read()

        return self._again(key, once)

    def download(self, key: str, dest: Path, *, sha256: str | None = None, size: int | None = None) -> None:
        def once() -> None:
            hasher, done = hashlib.sha256(), 0
            answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key))
            with contextlib.closing(answer["Body"]) as body, dest.open("wb") as target:
                for chunk in body.iter_chunks(CHUNK):
                    done += len(chunk)
                    if size is not None and done > size:
                        raise too_large(f"{key} in {self.url}", answer["ContentLength"], size)
                    hasher.update(chunk)
                    target.write(chunk)
            if sha256 is not None:
                check_digest(f"{key} in {self.url}", sha256, hasher.hexdigest())

        try:
            try:
                self._again(key, once)
            except IntegrityError:  # damaged on the way, or read while somebody overwrote it? ask once more
                self._again(key, once)
        except BaseException:
            dest.unlink(missing_ok=True)
            raise

    def head(self, key: str) -> ObjectInfo | None:
        with self._errors(key):
            try:
                answer = self.client.head_object(Bucket=self.bucket, Key=self._key(key))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
        return ObjectInfo(key, answer["ContentLength"], answer["LastModified"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        pages = self.client.get_paginator("list_objects_v2")
        with self._errors(prefix):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for item in page.get("Contents", []):
                    yield ObjectInfo(item["Key"].removeprefix(self.prefix), item["Size"], item["LastModified"])

    def delete(self, key: str) -> None:
        with self._errors(key):
            try:
                self.client.delete_object(Bucket=self.bucket, Key=self._key(key))
            except ClientError as error:
                if not is_missing(error):
                    raise

    def _key(self, key: str) -> str:
        return self.prefix + check_path(key)

    def _put(self, key: str, data: bytes, **condition: Any) -> str:
        answer = self.client.put_object(Bucket=self.bucket, Key=self._key(key), **body_arguments(data), **condition)
        return answer["ETag"]

    def _again(self, key: str, once: Callable[[], T]) -> T:
        """Repeats a read whose body broke off; the client itself repeats only up to the first byte."""
        with self._errors(key):
            for attempt in range(1, ATTEMPTS):
                try:
                    return once()
                except BROKEN_STREAM:
                    time.sleep(0.1 * 2**attempt)
            return once()

    def _errors(self, key: str, *, through_conditions: bool = False) -> Any:
        return s3_errors(self.url, self.endpoint, key, through_conditions=through_conditions)
