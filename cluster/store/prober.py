"""Finding out what a server really honours.

Some answer 200 to a conditional write and ignore the condition, so each answer is checked against what is stored
afterwards. Some compare well only in sequence, so writers are raced; and since some look at the condition when a request
begins and write when it ends, one writer is held in the middle of its body until another is done.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from cluster.store.probe import EtagForm, Honours, Probe, body_arguments, etag_as, md5_of
from cluster.store.s3_errors import code_of, condition_failed, is_missing, status_of
from tlgan.manifest import now_utc

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger("tlgan.store")

RACERS = 6
ROUNDS = 2
REPEATS = 3  # of a round that nobody won, as when a reply was lost
HELD_BYTES = 32 << 10
HELD_SECONDS = 5.0

Outcome = Literal["stored", "unmet", "refused"]
Contest = Callable[[], tuple[str, dict[str, Any]]]
"""Prepares a key and the condition under which one writer must win it."""


class Prober:
    """Runs the checks with objects below `<prefix>probe/`, which it removes where it may."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self.client, self.bucket = client, bucket
        self.base = f"{prefix}probe/{uuid.uuid4().hex}"
        self._used: list[str] = []
        self._requests = 0
        self._counting = threading.Lock()

    def run(self) -> Probe:
        """Raises botocore's errors when the server can't be asked."""
        started = time.monotonic()
        event, mark = "before-send.s3.PutObject", f"tlgan-{self.base}"
        self.client.meta.events.register(event, _hold, unique_id=mark)
        try:
            facts = self._facts()
        finally:
            self.client.meta.events.unregister(event, unique_id=mark)
        return Probe(**facts, seen=now_utc(), requests=self._requests, seconds=round(time.monotonic() - started, 3))

    def _facts(self) -> dict[str, Any]:
        key = self._key()
        try:
            self._put(key, b"first")
        except ClientError as error:
            if code_of(error) not in ("AccessDenied", "Forbidden", "403", "AllAccessDisabled"):
                raise
            return {"write": False}
        try:
            facts: dict[str, Any] = {"if_none_match": self._creates_once(key)}
            facts["if_match"], facts["etag_form"] = self._compares(key)
            return facts | self._details(key) | {"delete": self._deletes(key)}
        finally:
            self._clean_up()

    def _creates_once(self, key: str) -> Honours:
        outcome = self._attempt(key, b"second", IfNoneMatch="*")
        if outcome == "refused":
            return "refused"
        if outcome == "stored" or self._content(key) != b"first":
            return "ignored"
        return self._contested(lambda: (self._key(), {"IfNoneMatch": "*"}))

    def _compares(self, key: str) -> tuple[Honours, EtagForm | None]:
        forms: tuple[EtagForm, ...] = ("quoted", "bare")
        for form in forms:
            before = self._content(key)
            wrong = etag_as(form, hashlib.md5(b"other", usedforsecurity=False).hexdigest())
            outcome = self._attempt(key, b"wrong", IfMatch=wrong)
            if outcome == "refused":
                return "refused", None
            if outcome == "stored" or self._content(key) != before:
                return "ignored", None
            data = f"by {form} etag".encode()
            if self._attempt(key, data, IfMatch=etag_as(form, self._etag(key))) == "stored":
                if self._content(key) != data:
                    return "ignored", None
                honours = self._contested(lambda form=form: (key, {"IfMatch": etag_as(form, self._etag(key))}))  # type: ignore[misc]
                return honours, form if honours == "yes" else None
        return "refused", None

    def _contested(self, contest: Contest) -> Honours:
        """Whether one of several writers wins: first one that overtakes another, then several at once."""
        fair = self._one_wins(contest, self._overtake) and all(
            self._one_wins(contest, self._race) for _ in range(ROUNDS)
        )
        return "yes" if fair else "raced"

    def _one_wins(self, contest: Contest, run: Callable[[str, dict[str, Any]], dict[bytes, bool]]) -> bool:
        for _ in range(REPEATS):
            key, condition = contest()
            won = run(key, condition)
            content = self._content(key)
            winners = [data for data, stored in won.items() if stored]
            if winners or content not in won:
                return winners == [content]
        return False

    def _overtake(self, key: str, condition: dict[str, Any]) -> dict[bytes, bool]:
        slow, fast = _body("slow", HELD_BYTES), _body("fast")
        held = HeldBody(slow)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(self._attempt, key, held, ContentMD5=md5_of(slow), **condition)
            first.add_done_callback(lambda _: held.under_way.set())
            held.under_way.wait(HELD_SECONDS)
            try:
                second = self._attempt(key, fast, **condition)
            finally:
                held.go_on.set()
            return {slow: first.result() == "stored", fast: second == "stored"}

    def _race(self, key: str, condition: dict[str, Any]) -> dict[bytes, bool]:
        start = threading.Barrier(RACERS)

        def racer(data: bytes) -> bool:
            start.wait()
            return self._attempt(key, data, **condition) == "stored"

        bodies = [_body(f"racer {number}") for number in range(RACERS)]
        with ThreadPoolExecutor(RACERS) as pool:
            return dict(zip(bodies, pool.map(racer, bodies), strict=True))

    def _details(self, key: str) -> dict[str, Any]:
        damaged, data = self._key(), b"not what the sum says"
        md5 = self._attempt(damaged, data, ContentMD5=md5_of(b"something else"))
        wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
        unlike = self._key()
        sha256 = self._attempt(unlike, data, ChecksumAlgorithm="SHA256", ChecksumSHA256=wrong)
        encrypted = self._encrypts()
        listed = self._listed()
        return {
            "content_md5": md5 != "stored" and damaged not in listed,
            "sha256": sha256 != "stored" and unlike not in listed,
            "encryption": encrypted,
            "list_after_put": key in listed,
            "ranges": self._ranges(key),
        }

    def _encrypts(self) -> str:
        try:
            answer = self._put(self._key(), b"secret", ServerSideEncryption="AES256")
        except ClientError as error:
            _raise_unless_refused(error)
            return "refused"
        return "yes" if answer.get("ServerSideEncryption") == "AES256" else "ignored"

    def _ranges(self, key: str) -> str:
        whole = self._content(key)
        self._count()
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=key, Range="bytes=2-4")
            right = answer["Body"].read() == whole[2:5]
        except ClientError as error:
            _raise_unless_refused(error)
            return "wrong"
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        return str(status) if right and status in (200, 206) else "wrong"

    def _listed(self) -> set[str]:
        self._count()
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.base)
        return {item["Key"] for item in found.get("Contents", [])}

    def _deletes(self, key: str) -> bool:
        self._count(2)
        try:
            self.client.delete_object(Bucket=self.bucket, Key=key)
            self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            gone = is_missing(error)
            if gone:
                self._used.remove(key)
            else:
                self._used.clear()  # this key may not delete: a few bytes stay behind
            return gone
        return False

    def _key(self) -> str:
        self._used.append(f"{self.base}-{len(self._used) + 1}")
        return self._used[-1]

    def _put(self, key: str, data: bytes | HeldBody, **options: Any) -> Any:
        self._count()
        body = {"Body": data} if isinstance(data, HeldBody) else body_arguments(data)
        return self.client.put_object(Bucket=self.bucket, Key=key, **(body | options))

    def _attempt(self, key: str, data: bytes | HeldBody, **options: Any) -> Outcome:
        try:
            self._put(key, data, **options)
        except ClientError as error:
            if condition_failed(error):
                return "unmet"
            _raise_unless_refused(error)
            return "refused"
        return "stored"

    def _content(self, key: str) -> bytes:
        self._count()
        try:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if is_missing(error):
                return b""
            raise

    def _etag(self, key: str) -> str:
        self._count()
        return self.client.head_object(Bucket=self.bucket, Key=key)["ETag"]

    def _count(self, number: int = 1) -> None:
        with self._counting:
            self._requests += number

    def _clean_up(self) -> None:
        for key in self._used:
            try:
                self._count()
                self.client.delete_object(Bucket=self.bucket, Key=key)
            except Exception as error:
                log.debug("probe object %s stays: %s", key, type(error).__name__)


class HeldBody(io.BytesIO):
    """A body of which the first block is sent, and the rest when `go_on` is set. `under_way`: the first one is sent."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.sending = False  # before, it is read to be signed
        self.under_way, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        if self.sending and self.tell() > 0:
            self.under_way.set()
            self.go_on.wait(HELD_SECONDS)
        return super().read(HELD_BYTES // 4 if self.sending else size)


def _hold(request: Any, **_: Any) -> None:
    if isinstance(request.body, HeldBody):
        request.body.sending = True


def _body(text: str, size: int = 0) -> bytes:
    return f"{text} {uuid.uuid4().hex}".encode().ljust(size, b".")


def _raise_unless_refused(error: ClientError) -> None:
    """A server in trouble says nothing about what it honours."""
    if status_of(error) == 429 or (status_of(error) >= 500 and status_of(error) != 501):
        raise error
