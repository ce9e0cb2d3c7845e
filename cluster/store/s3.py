"""A bucket as a store, on any server that speaks S3; `probe` knows what servers get wrong.

Conditions are used only where the probe saw them work. Checksum trailers are off (several servers refuse them);
Content-MD5 is always sent, the ETag of the answer compared (`s3_receipt`), and content checked by sha256 at both ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from cluster.store.base import CHUNK, Capabilities, ObjectInfo, check_digest, scrub, sha256_of, too_large
from cluster.store.pieces import Rule
from cluster.store.probe import Probe, etag_as
from cluster.store.probe_cache import KnownProbe
from cluster.store.s3_download import Downloads
from cluster.store.s3_errors import BROKEN_STREAM, code_of, is_missing, refuses_condition, s3_errors, status_of
from cluster.store.s3_fast import FastPut
from cluster.store.s3_gate import Gate
from cluster.store.s3_quick import QuickPut
from cluster.store.s3_receipt import Receipts, encryption, md5_of, with_md5
from cluster.store.s3_upload import PART, Multipart
from tlgan.errors import BackendError, Conflict, NotFound, SpecError
from tlgan.naming import check_path

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

MULTIPART_FROM = PART + 1
READ_BACK = 1 << 20
ATTEMPTS = 3
SMALL_FIRST = 4  # puts in one request at once, to begin with: they wait for the server more than they send
CONTENDED = 6
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 60.0


def make_client(endpoint: str | None, profile: str | None = None) -> S3Client:
    """Path-style addresses on a custom endpoint. Gives up on an unreachable one after about ten seconds.

    `profile`: of the AWS configuration files, whose key is used instead of that in the environment.
    """
    config = Config(
        signature_version="s3v4",
        s3={
            "addressing_style": "path" if endpoint else "auto",
            "payload_signing_enabled": False,  # Content-MD5 is always sent and signed; one sum less of every byte
        },
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=32,
        tcp_keepalive=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    core = botocore.session.Session()
    core.register_component("data_loader", _service_models())
    session = boto3.session.Session(profile_name=profile, botocore_session=core)
    region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    client = session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
    if extra := encryption():
        for operation in ("PutObject", "CreateMultipartUpload"):  # of whoever uses the client, the probe too
            client.meta.events.register(
                f"provide-client-params.s3.{operation}", lambda params, **_: params.update(extra)
            )
    return client


@cache
def _service_models() -> Any:
    """Read once by a process, not once for each client: three quarters of what making one takes."""
    return botocore.session.Session().get_component("data_loader")


class S3Store:
    """The backend for `s3://bucket/prefix`. `endpoint` None means Amazon's. Can be pickled; the client is made anew."""

    pieces = Rule()

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None, profile: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{check_path(prefix)}/" if prefix else ""
        self.endpoint, self.profile = endpoint, profile
        with s3_errors(self.url, endpoint):
            try:
                self.client = make_client(endpoint, profile)
            except SpecError:
                raise
            except ValueError as error:
                raise BackendError(f"store {self.url}: {scrub(error)}") from None
        self._gate, self._small, self._receipts = Gate(), Gate(first=SMALL_FIRST), Receipts()
        self._quick = QuickPut(self.client, endpoint, bucket)
        self.fast = FastPut(self.client, endpoint, bucket, self._receipts)
        pool = ThreadPoolExecutor(self._gate.most, thread_name_prefix="tlgan-s3")  # a job in it has passed the gate
        self._multipart = Multipart(
            self.client, self.url, endpoint, bucket, self._gate, self._quick, self._receipts, pool
        )
        self._downloads = Downloads(self.client, bucket, self.url, self._gate, pool)
        self.known = KnownProbe(self.client, endpoint, bucket, self.prefix)

    def __reduce__(self) -> tuple[Any, ...]:
        return S3Store, (self.bucket, self.prefix.rstrip("/"), self.endpoint, self.profile)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def probe(self) -> Probe:
        """What the server was seen to do, lately."""
        with self._errors("probe"):
            return self.known.get()

    def probe_now(self) -> Probe:
        """As `probe`, but the server is asked."""
        with self._errors("probe"):
            return self.known.get(fresh=True)

    @property
    def capabilities(self) -> Capabilities:
        return self.probe.capabilities

    def hash_file(self, path: Path) -> str:
        """sha256 of a file that will be put; what its upload needs of the same reading is remembered."""
        return self._multipart.hash_file(path) if path.stat().st_size >= MULTIPART_FROM else sha256_of(path)

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        with self._errors(key):
            if isinstance(data, Path) and (size := data.stat().st_size) >= MULTIPART_FROM:
                self._multipart.upload(self._key(key), data, size, sha256)
                return
            with self._small:
                body = data.read_bytes() if isinstance(data, Path) else data
                if sha256 is not None:
                    check_digest(str(data) if isinstance(data, Path) else key, sha256, hashlib.sha256(body).hexdigest())
                self._put(key, body)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        for attempt in range(CONTENDED):
            create_only = self.probe.create_only
            if create_only and self._put_under(key, data, IfNoneMatch="*") is not None:
                return True
            if self.head(key) is not None:
                return False
            if not create_only:  # a best effort: another writer can come between the two calls
                self.put(key, data)
                return True
            self._doubt()
            time.sleep(0.05 * 2**attempt)
        raise BackendError(f"store {self.url}: {key} is contended; creating it met a conflict {CONTENDED} times")

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> str:
        for _ in range(2):
            probe = self.probe
            if not probe.capabilities.compare_and_swap or probe.etag_form is None:
                raise BackendError(f"store {self.url} can't compare and swap: {probe.note}")
            condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": etag_as(probe.etag_form, expected)}
            token = self._put_under(key, data, **condition)
            if token is not None:
                return token
            if self.probe is probe and (self.known.certain or self._etag(key) != expected or not self._doubt()):
                break  # somebody changed it; else the server says so of what nobody changed
        raise Conflict(f"{key} in {self.url} was changed by somebody else")

    def _put_under(self, key: str, data: bytes, **condition: str) -> str | None:
        """The new token, or None when the condition does not hold."""
        try:
            with self._errors(key, through_conditions=True):
                return self._put(key, data, **condition)
        except NotFound:  # to replace what was deleted
            return None
        except ClientError as error:
            if refuses_condition(error) and not self._doubt():
                name = "If-None-Match" if "IfNoneMatch" in condition else "If-Match"
                message = f"store {self.url} answers {status_of(error)} to {name}, which it understood a moment ago"
                raise BackendError(message) from None
            return None

    def _doubt(self) -> bool:
        with self._errors("probe"):
            return self.known.doubt()

    def _etag(self, key: str) -> str | None:
        with self._errors(key):
            try:
                return self.client.head_object(Bucket=self.bucket, Key=self._key(key))["ETag"]
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

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
                if answer["ContentLength"] <= end - start:
                    return body.read()
                for position in range(0, start, CHUNK):  # it ignores ranges and sends everything
                    body.read(min(CHUNK, start - position))
                return body.read(end - start)

        return self._again(key, once)

    def download(self, key: str, dest: Path, *, sha256: str | None = None, size: int | None = None) -> None:
        try:
            with self._errors(key):
                self._downloads.download([(self._key(key), size)], dest, sha256)
        except BaseException:
            dest.unlink(missing_ok=True)
            raise

    def download_joined(self, parts: Sequence[tuple[str, int]], dest: Path, *, sha256: str) -> None:
        """As `download`, of objects (key and size) one after the other."""
        try:
            with self._errors(parts[0][0]):
                self._downloads.download([(self._key(key), size) for key, size in parts], dest, sha256)
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

    def folders(self, prefix: str) -> Iterator[str]:
        pages = self.client.get_paginator("list_objects_v2")
        whole = self.prefix + prefix
        with self._errors(prefix):
            for page in pages.paginate(Bucket=self.bucket, Prefix=whole, Delimiter="/"):
                for item in page.get("CommonPrefixes", []):
                    yield item["Prefix"].removeprefix(whole).removesuffix("/")

    def delete(self, key: str) -> None:
        with self._errors(key):
            try:
                self.client.delete_object(Bucket=self.bucket, Key=self._key(key))
            except ClientError as error:
                if not is_missing(error):
                    raise

    def presign(self, key: str, seconds: int, filename: str) -> str:
        """A URL that anybody can read `key` with, saved as `filename`. Signed here: the server is not asked."""
        wanted = {"ResponseContentDisposition": f'attachment; filename="{filename}"'}
        with self._errors(key):
            return self.client.generate_presigned_url(
                "get_object", {"Bucket": self.bucket, "Key": self._key(key), **wanted}, ExpiresIn=seconds
            )

    def _key(self, key: str) -> str:
        return self.prefix + check_path(key)

    def _put(self, key: str, data: bytes, **condition: Any) -> str:
        """Puts what fits into memory; returns the ETag when the server confirmed the content."""
        md5 = md5_of(data)
        where: dict[str, Any] = {"Bucket": self.bucket, "Key": self._key(key), **with_md5(data, md5), **condition}

        def send() -> Any:
            return self.client.put_object(**where)

        quick = {} if condition else self.fast(where["Key"], data)
        if quick is None:
            quick = self._quick(where["Key"], data, md5)
        if quick and self._receipts.confirms(quick, md5):
            self._small.faster()
            return str(quick["ETag"])
        for _ in range(ATTEMPTS):
            answer = send() if condition else self._small.patiently(send)
            etag, confirmed = str(answer["ETag"]), self._receipts.confirms(answer, md5)
            if confirmed or self._is_stored(key, data, etag, confirmed):
                return etag
            if condition:
                break
        raise BackendError(f"store {self.url}: {key} was damaged on the way, and the server did not notice")

    def _is_stored(self, key: str, data: bytes, etag: str, confirmed: bool | None) -> bool:
        """For a server whose ETags are no md5: small objects are read back."""
        if len(data) > READ_BACK:
            return confirmed is None
        found = self.client.get_object(Bucket=self.bucket, Key=self._key(key))
        with contextlib.closing(found["Body"]) as body:
            if body.read() != data:
                return found["ETag"] != etag  # another writer came after
        if confirmed is False:
            self._receipts.etags_are_md5 = False
        return True

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
