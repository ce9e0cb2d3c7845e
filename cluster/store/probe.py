"""What a server really honours. Some answer 200 to a conditional write and ignore the condition, so each answer is
checked against what is stored afterwards, and the ones that pass are raced, for some compare well only in sequence.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from cluster.store.base import Capabilities
from cluster.store.s3_errors import condition_failed

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger("tlgan.store")

RACERS = 6
ROUNDS = 2

EtagForm = Literal["quoted", "bare"]


@dataclass(frozen=True)
class Probe:
    """`etag_form`: how If-Match wants the etag; None where compare-and-swap does not work."""

    create_only: bool
    etag_form: EtagForm | None

    @property
    def capabilities(self) -> Capabilities:
        missing = [name for name, has in (("If-None-Match", self.create_only), ("If-Match", self.etag_form)) if not has]
        note = f"the server does not honour {' and '.join(missing)}" if missing else ""
        return Capabilities(self.create_only, self.create_only and self.etag_form is not None, note)


def etag_as(form: EtagForm, etag: str) -> str:
    return f'"{etag.strip(chr(34))}"' if form == "quoted" else etag.strip('"')


def body_arguments(data: bytes) -> dict[str, Any]:
    """Body and Content-MD5: servers that enforce it refuse a body damaged on the way."""
    return {"Body": data, "ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}


class Prober:
    """Runs the checks with objects below `<prefix>probe/`, which it removes where it may."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self.client, self.bucket = client, bucket
        self.base = f"{prefix}probe/{uuid.uuid4().hex}"
        self._count = 0
        self._used: list[str] = []

    def run(self) -> Probe:
        try:
            create_only = self._creates_once()
            forms: tuple[EtagForm, ...] = ("quoted", "bare")
            return Probe(create_only, next((form for form in forms if self._compares(form)), None))
        finally:
            self._clean_up()

    def _creates_once(self) -> bool:
        key = self._key()
        self._put(key, b"first")
        if self._try(key, b"second", IfNoneMatch="*") or self._content(key) != b"first":
            return False
        return all(self._race(self._key(), IfNoneMatch="*") == 1 for _ in range(ROUNDS))

    def _compares(self, form: EtagForm) -> bool:
        key = self._key()
        self._put(key, b"first")
        wrong = etag_as(form, hashlib.md5(b"other", usedforsecurity=False).hexdigest())
        if self._try(key, b"second", IfMatch=wrong) or self._content(key) != b"first":
            return False
        if not self._try(key, b"third", IfMatch=etag_as(form, self._etag(key))) or self._content(key) != b"third":
            return False
        return all(self._race(key, IfMatch=etag_as(form, self._etag(key))) == 1 for _ in range(ROUNDS))

    def _race(self, key: str, **condition: Any) -> int:
        """Number of winners among threads that start together; an odd answer counts as many."""
        wins: list[int] = []
        start = threading.Barrier(RACERS)
        token = uuid.uuid4().hex

        def racer(number: int) -> None:
            start.wait()
            try:
                wins.append(int(self._try(key, f"racer {number} {token}".encode(), **condition)))
            except Exception:
                wins.append(RACERS)

        threads = [threading.Thread(target=racer, args=(number,)) for number in range(RACERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(wins)

    def _key(self) -> str:
        self._count += 1
        self._used.append(f"{self.base}-{self._count}")
        return self._used[-1]

    def _put(self, key: str, data: bytes, **condition: Any) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, **body_arguments(data), **condition)

    def _try(self, key: str, data: bytes, **condition: Any) -> bool:
        """Whether the server accepted a conditional put. Any refusal but of the credentials counts as no."""
        try:
            self._put(key, data, **condition)
        except ClientError as error:
            if condition_failed(error) or error.response["ResponseMetadata"]["HTTPStatusCode"] not in (401, 403):
                return False
            raise
        return True

    def _content(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def _etag(self, key: str) -> str:
        return self.client.head_object(Bucket=self.bucket, Key=key)["ETag"]

    def _clean_up(self) -> None:
        for key in self._used:
            try:
                self.client.delete_object(Bucket=self.bucket, Key=key)
            except Exception as error:  # a role that may not delete leaves a few bytes behind
                log.debug("probe object %s stays: %s", key, type(error).__name__)
