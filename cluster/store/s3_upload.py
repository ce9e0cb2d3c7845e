"""Large objects go up in parts, sent a few at a time, completed only when every byte is that of the digest.

A file is hashed once: the reading that gives its sha256 gives the CRC of every part too, by which a file that changes between its
hashing and its sending is noticed. The server says the md5 of what it received, or refuses what has another; and servers that hold
parts against their CRC are given that as well.

An upload that was killed goes on from the parts that the server has, each compared by its md5. Nobody sees an upload
before it is completed, so it may be older than the lease under which it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from cluster.store.base import check_digest
from cluster.store.s3_errors import code_of, is_missing, status_of
from cluster.store.s3_gate import Gate
from cluster.store.s3_journal import Upload, UploadJournal
from cluster.store.s3_quick import QuickPut
from cluster.store.s3_receipt import Receipts, crc_as_sent, md5_of, with_md5
from cluster.store.s3_sums import Summing
from tlgan.errors import BackendError, IntegrityError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART = 8 << 20
LARGE, LARGE_PART = 256 << 20, 2 * PART  # fewer requests cost client and server less, and there are enough to share out
MAX_PARTS = 9_000
TRIES = 2
CRC: Literal["CRC32"] = "CRC32"
CHANGED = "the file changed after it was hashed"

Part = dict[str, Any]


class _Forgotten(Exception):
    """The server does not know the upload any more."""


class Multipart:
    """Uploads of one client. Parts are in memory inside the gate, and one before it, however many files go up at once."""

    def __init__(
        self,
        client: S3Client,
        url: str,
        endpoint: str | None,
        bucket: str,
        gate: Gate,
        quick: QuickPut,
        receipts: Receipts,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.client, self.url, self.endpoint, self.bucket = client, url, endpoint, bucket
        self.gate, self.quick, self.receipts, self.pool = gate, quick, receipts, pool
        self.journal, self._summing = UploadJournal(), Summing(pool)
        self._swept, self._refuses_crc, self._ahead = False, False, threading.Lock()
        self._sums: dict[tuple[str, int, int], list[int]] = {}

    def hash_file(self, path: Path) -> str:
        """sha256 of a file, in hexadecimal; the CRCs of its parts are kept for its upload."""
        stat = path.stat()
        digest, self._sums[_identity(path, stat)] = self._summing.hash_parts(path, part_size(stat.st_size))
        return digest

    def upload(self, key: str, path: Path, size: int, sha256: str | None) -> None:
        """Raises `IntegrityError`, storing nothing, when the file's bytes are not those of `sha256`."""
        self._sweep()
        upload = Upload(self.endpoint, self.bucket, key, sha256 or "", size, part_size(size))
        with self.journal.holding(upload) as held:
            resumable = held and sha256 is not None
            for attempt in range(1, TRIES + 1):
                try:
                    self._run(upload, path, resumable)
                    return
                except _Forgotten:
                    self.journal.remove(upload)
                    if attempt == TRIES:
                        raise BackendError(
                            f"store {self.url}: the server forgot the upload of {key} on the way, {TRIES} times"
                        ) from None

    def _run(self, upload: Upload, path: Path, resumable: bool) -> None:
        upload, there = self._begin(upload, resumable)
        try:
            sums = self._sums.pop(_identity(path, path.stat()), None)
            parts, found = self._send_all(upload, path, there, sums)
            if upload.sha256 and found is not None:
                check_digest(str(path), upload.sha256, found)
            self._complete(upload, parts)
        except BaseException as error:
            if not resumable or isinstance(error, IntegrityError):
                self._abort(upload)
            raise
        self.journal.remove(upload)

    def _begin(self, upload: Upload, resumable: bool) -> tuple[Upload, dict[int, str]]:
        """The upload with its name, and the md5 (by the server's word) of the parts that are there: number -> md5."""
        if resumable and (known := self.journal.find(upload)) and (there := self._parts(known)) is not None:
            return known, there
        answer = self._create(upload.key)
        upload = replace(upload, upload_id=answer["UploadId"], crc=answer.get("ChecksumAlgorithm") == CRC)
        if resumable:
            self.journal.write(upload)
        return upload, {}

    def _create(self, key: str) -> Mapping[str, Any]:
        """Asks for an upload with CRCs. Who knows them says so and checks each part; most others overhear the wish."""
        wish: dict[str, Any] = {} if self._refuses_crc else {"ChecksumAlgorithm": CRC}
        try:
            return self.client.create_multipart_upload(Bucket=self.bucket, Key=key, **wish)
        except ClientError as error:
            if not wish or status_of(error) not in (400, 501):
                raise
        answer = self.client.create_multipart_upload(Bucket=self.bucket, Key=key)
        self._refuses_crc = True
        return answer

    def _parts(self, upload: Upload) -> dict[int, str] | None:
        pages = self.client.get_paginator("list_parts")
        try:
            found = [part for page in pages.paginate(**_where(upload)) for part in page.get("Parts", [])]
        except ClientError as error:
            if status_of(error) in (401, 403, 429, 503):
                raise
            return None
        return {part["PartNumber"]: part["ETag"].strip('"') for part in found if part["Size"]}

    def _send_all(
        self, upload: Upload, path: Path, there: Mapping[int, str], sums: list[int] | None
    ) -> tuple[list[Part], str | None]:
        """All parts and the sha256 of what was read; None where each part is held against its CRC in `sums`.

        The next part is read and summed while the gate is shut.
        """
        hasher = hashlib.sha256() if sums is None else None
        futures: list[Future[Part]] = []
        weight = -(-upload.part_size // PART)
        try:
            with path.open("rb", buffering=0) as file:
                for number in range(1, -(-upload.size // upload.part_size) + 1):
                    with self._ahead:
                        data = file.read(upload.part_size)
                        crc, md5 = zlib.crc32(data), md5_of(data)
                        if sums is not None and crc != sums[number - 1]:
                            raise IntegrityError(CHANGED)
                        if hasher:
                            hasher.update(data)
                        self.gate.enter(weight)
                    try:
                        job = self.pool.submit(self._send, upload, number, data, crc, md5, there.get(number))
                    except BaseException:
                        self.gate.leave(weight)
                        raise
                    job.add_done_callback(lambda _: self.gate.leave(weight))
                    futures.append(job)
                    del data
                    if any(job.done() and job.exception() for job in futures[-2 * self.gate.most :]):
                        break
            return [job.result() for job in futures], hasher.hexdigest() if hasher else None
        finally:
            wait(futures)  # a part that arrives after an abort would stay and cost

    def _send(self, upload: Upload, number: int, data: bytes, crc: int, md5: bytes, there: str | None) -> Part:
        """Sends a part, if the server does not have it."""
        part: Part = {"PartNumber": number, **({"ChecksumCRC32": crc_as_sent(crc)} if upload.crc else {})}
        if there == md5.hex():
            return {**part, "ETag": f'"{there}"'}
        body = {"Body": data} if self.receipts.etags_are_md5 else with_md5(data, md5)  # else the server sums it twice
        where = {**_where(upload), **part, **body}
        etags: set[str] = set()
        for attempt in range(TRIES):
            try:
                answer = self._put_part(where, data, md5, quick=attempt == 0)
            except ClientError as error:
                if etags:  # a damaged part that the server does not take again: all anew
                    self._abort(upload)
                if etags or _is_forgotten(error):
                    raise _Forgotten from None
                raise
            if self.receipts.confirms(answer, md5) is not False:
                return {**part, "ETag": answer["ETag"]}
            etags.add(answer["ETag"])
            where.update(with_md5(data, md5))
        if self.receipts.etags_are_md5 is None and len(etags) == 1:  # the same twice: it is no md5 here
            return {**part, "ETag": etags.pop()}
        raise BackendError(f"store {self.url}: part {number} of {upload.key} was damaged on the way, {TRIES} times")

    def _put_part(self, where: dict[str, Any], data: bytes, md5: bytes, quick: bool) -> Mapping[str, Any]:
        if quick:
            sent_md5 = md5 if "ContentMD5" in where else None
            name = where["UploadId"], where["PartNumber"]
            if answer := self.quick(where["Key"], data, sent_md5, name, where.get("ChecksumCRC32")):
                self.gate.faster()
                return answer
        return self.gate.patiently(lambda: self.client.upload_part(**where))

    def _complete(self, upload: Upload, parts: list[Part]) -> None:
        """A reply that was lost makes the client ask again, which then finds no upload: look for the object.

        Nothing is looked for when the reply names the parts: there are servers that read the object anew to be asked for it.
        """
        try:
            answer = self.client.complete_multipart_upload(**_where(upload), MultipartUpload={"Parts": parts})  # type: ignore[typeddict-item]
            if self.receipts.etags_are_md5 and answer.get("ETag", "").strip('"') == _etag_of(parts) != "":
                return
        except ClientError as error:
            if not _is_forgotten(error):
                raise
            if self._stored(upload)[1] != _etag_of(parts):
                raise _Forgotten from None
        size = self._stored(upload)[0]
        if size != upload.size:
            raise BackendError(
                f"store {self.url}: {upload.key} was completed with {size} bytes; expected {upload.size}"
            )

    def _stored(self, upload: Upload) -> tuple[int, str]:
        """Size and ETag of the object, (-1, "") without one."""
        try:
            answer = self.client.head_object(Bucket=self.bucket, Key=upload.key)
        except ClientError as error:
            if is_missing(error):
                return -1, ""
            raise
        return answer["ContentLength"], answer["ETag"].strip('"')

    def _sweep(self) -> None:
        """Ends uploads of this node that were given up: their parts cost, and nobody sees them."""
        if not self._swept:
            self._swept = True
            for upload in self.journal.stale(self.endpoint, self.bucket):
                self._abort(upload)

    def _abort(self, upload: Upload) -> None:
        self.journal.remove(upload)
        with contextlib.suppress(Exception):
            self.client.abort_multipart_upload(**_where(upload))


def part_size(size: int) -> int:
    """Bytes of each part of a file of `size` bytes, but for its last."""
    return max(PART if size < LARGE else LARGE_PART, -(-size // MAX_PARTS))


def _identity(path: Path, stat: os.stat_result) -> tuple[str, int, int]:
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def _where(upload: Upload) -> Any:
    return {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.upload_id}


def _is_forgotten(error: ClientError) -> bool:
    return code_of(error) == "NoSuchUpload" or status_of(error) == 404


def _etag_of(parts: list[Part]) -> str:
    """The ETag that most servers give an object of these parts; "" where theirs are no md5."""
    try:
        joined = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"
