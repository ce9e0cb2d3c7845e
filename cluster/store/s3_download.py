"""Objects come down to a file: small ones as one stream, large ones in ranges side by side.

A large one is written to `<sha256>.part` beside its destination, which stays when the download is interrupted: the next
one into the same directory goes on from it. Every byte is hashed before the file gets its name, what an earlier process
left included; when the digest is wrong, the whole object is asked for once more, in one stream.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from cluster.store.base import CHUNK, check_digest, too_large
from cluster.store.locks import file_lock
from cluster.store.s3_errors import BROKEN_STREAM, is_missing, status_of
from cluster.store.s3_gate import Gate
from cluster.store.s3_progress import Progress
from tlgan.errors import IntegrityError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Parts = Sequence[tuple[str, int | None]]
"""Keys and sizes, as far as known, of what makes up one file."""

RANGED_FROM = 32 << 20
ATTEMPTS = 3


class _NoRanges(Exception):
    """The server sends something else than the range it was asked for."""


class Joined:
    """Objects, each with its key and size, as one file."""

    def __init__(self, parts: Sequence[tuple[str, int]]) -> None:
        self._keys = [key for key, _ in parts]
        self._ends = list(itertools.accumulate(size for _, size in parts))
        self.size = self._ends[-1]

    def at(self, position: int) -> tuple[str, int, int]:
        """The object that has the byte there, and where it begins and ends in the file."""
        number = bisect.bisect_right(self._ends, position)
        return self._keys[number], self._ends[number - 1] if number else 0, self._ends[number]


class Downloads:
    """Downloads of one client. `url` names the store in messages."""

    def __init__(self, client: S3Client, bucket: str, url: str, gate: Gate, pool: ThreadPoolExecutor) -> None:
        self.client, self.bucket, self.url, self.gate, self.pool = client, bucket, url, gate, pool
        self.ranges = True

    def download(self, parts: Parts, dest: Path, sha256: str | None) -> None:
        """Objects one after the other. Raises `IntegrityError` for other bytes than those of `sha256`, or more than their sizes."""
        sizes = [size for _, size in parts if size is not None]
        if self.ranges and sha256 is not None and len(sizes) == len(parts) and sum(sizes) >= RANGED_FROM:
            with self._part_file(dest, sha256) as part:
                if part is not None and self._by_ranges(
                    Joined([(key, size or 0) for key, size in parts]), part, sha256
                ):
                    os.replace(part, dest)
                    return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._as_stream(parts, dest, sha256)
                return
            except (IntegrityError, *BROKEN_STREAM):  # damaged on the way, or read while somebody overwrote it
                if attempt == ATTEMPTS:
                    raise
                time.sleep(0.1 * 2**attempt)

    def _as_stream(self, parts: Parts, dest: Path, sha256: str | None) -> None:
        hasher = hashlib.sha256()
        with self.gate, dest.open("wb", buffering=0) as target:
            for key, size in parts:
                for chunk in self._stream(key, size):
                    hasher.update(chunk)
                    target.write(chunk)
        if sha256 is not None:
            check_digest(f"{_named(parts)} in {self.url}", sha256, hasher.hexdigest())

    def _stream(self, key: str, size: int | None) -> Iterator[bytes]:
        answer, done = self._get(key), 0
        with contextlib.closing(answer["Body"]) as body:
            for chunk in body.iter_chunks(CHUNK):
                done += len(chunk)
                if size is not None and done > size:
                    raise too_large(f"{key} in {self.url}", answer["ContentLength"], size)
                yield chunk

    @contextlib.contextmanager
    def _part_file(self, dest: Path, sha256: str) -> Iterator[Path | None]:
        """The file that outlives its process; None while another process writes it."""
        part = dest.with_name(f"{sha256}.part")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(part, timeout=0))
                free = part.exists()  # else it got its name while we opened it
            except TimeoutError:
                free = False
            yield part if free else None

    def _by_ranges(self, source: Joined, part: Path, sha256: str) -> bool:
        """Whether `part` is the object now; False when it has to come in one stream after all."""
        progress = Progress(part, source.size)
        whole = keep = False
        try:
            with part.open("r+b", buffering=0) as target:
                _allocate(target.fileno(), source.size)
                whole = self._fetch_all(source, target.fileno(), progress) == sha256
        except _NoRanges:
            self.ranges = False
        except BaseException as error:
            keep = not isinstance(error, IntegrityError) and not (isinstance(error, ClientError) and is_missing(error))
            raise
        finally:
            if keep:
                progress.save()
            else:
                progress.forget()
                if not whole:
                    part.unlink(missing_ok=True)
        return whole

    def _fetch_all(self, source: Joined, descriptor: int, progress: Progress) -> str:
        """Fetches what is missing; the sha256 of the whole file."""
        jobs: list[Future[None]] = []
        with ThreadPoolExecutor(1, thread_name_prefix="tlgan-hash") as hashing:
            digest = hashing.submit(progress.sha256, descriptor)
            try:
                for number in progress.missing():
                    self.gate.enter()
                    if progress.stopped:
                        self.gate.leave()
                        break
                    jobs.append(self.pool.submit(self._fetch, source, descriptor, progress, number))
                for job in jobs:
                    job.result()
            finally:
                progress.stop()  # after the last job has ended well this changes nothing
                wait(jobs)
        return digest.result()

    def _fetch(self, source: Joined, descriptor: int, progress: Progress, number: int) -> None:
        """One range; a stream that breaks off is asked for again from there. Leaves the gate."""
        try:
            left = ATTEMPTS
            while progress.at(number) < progress.end(number) and not progress.stopped:
                before = progress.at(number)
                try:
                    self._fetch_rest(source, descriptor, progress, number)
                except BROKEN_STREAM:
                    left = left - 1 if progress.at(number) == before else ATTEMPTS
                    if not left:
                        raise
                    time.sleep(0.1 * 2 ** (ATTEMPTS - left))
        except BaseException:
            progress.stop()
            raise
        finally:
            self.gate.leave()

    def _fetch_rest(self, source: Joined, descriptor: int, progress: Progress, number: int) -> None:
        """Up to the end of the range, or of the object. A server may answer 200 to a range and be right: the length tells."""
        at = progress.at(number)
        key, first, last = source.at(at)
        end = min(progress.end(number), last)
        place = f"{key} in {self.url}"
        try:
            answer = self._get(key, Range=f"bytes={at - first}-{end - first - 1}")
        except ClientError as error:
            if status_of(error) == 416:
                raise IntegrityError(f"{place} ends before {last - first} bytes") from None
            raise
        with contextlib.closing(answer["Body"]) as body:
            total = str(answer.get("ContentRange", "")).rpartition("/")[2]
            if total.isdigit() and int(total) != last - first:
                raise IntegrityError(f"{place} has {total} bytes; {last - first} are expected there")
            if answer["ContentLength"] != end - at:
                raise _NoRanges
            for chunk in body.iter_chunks(CHUNK):
                os.pwrite(descriptor, chunk, at)
                at += len(chunk)
                progress.reached(number, at)
                if progress.stopped:
                    return

    def _get(self, key: str, **extra: str) -> Any:
        return self.gate.patiently(lambda: self.client.get_object(Bucket=self.bucket, Key=key, **extra))  # type: ignore[arg-type]


def _named(parts: Parts) -> str:
    return parts[0][0] + (f" and the {len(parts) - 1} pieces after it" if parts[1:] else "")


def _allocate(descriptor: int, size: int) -> None:
    """Room for the whole file, so that a full disk is noticed now; its blocks where the system can."""
    if os.fstat(descriptor).st_size != size:
        os.ftruncate(descriptor, 0)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)
