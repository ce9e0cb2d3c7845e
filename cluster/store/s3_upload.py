"""Large objects go up in parts: hashed in order, sent a few at a time, completed only when the digest is right."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.store.base import check_digest
from cluster.store.probe import body_arguments

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART = 8 << 20
MAX_PARTS = 9_000
IN_FLIGHT = 6


class Multipart:
    """Uploads of one client; at most `IN_FLIGHT` parts are in memory, however many files go up at once."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self._room = threading.BoundedSemaphore(IN_FLIGHT)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="tlgan-part")

    def upload(self, key: str, path: Path, size: int, sha256: str | None) -> None:
        """Raises `IntegrityError`, storing nothing, when the file's bytes are not those of `sha256`."""
        part_size = max(PART, -(-size // MAX_PARTS))
        upload = self.client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        where: dict[str, Any] = {"Bucket": self.bucket, "Key": key, "UploadId": upload}
        hasher = hashlib.sha256()
        futures: list[Future[dict[str, Any]]] = []
        try:
            for number, data in enumerate(_pieces(path, part_size), 1):
                self._room.acquire()
                futures.append(self._pool.submit(self._send, where, number, data))
                hasher.update(data)
                if any(future.done() and future.exception() for future in futures[-2 * IN_FLIGHT :]):
                    break
            parts: list[Any] = [future.result() for future in futures]
            if sha256 is not None:
                check_digest(str(path), sha256, hasher.hexdigest())
            self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        except BaseException:
            wait(futures)  # a part that arrives after the abort would stay and cost
            with contextlib.suppress(Exception):
                self.client.abort_multipart_upload(**where)
            raise

    def _send(self, where: dict[str, Any], number: int, data: bytes) -> dict[str, Any]:
        try:
            answer = self.client.upload_part(**where, PartNumber=number, **body_arguments(data))
            return {"PartNumber": number, "ETag": answer["ETag"]}
        finally:
            self._room.release()


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(size):
            yield data
