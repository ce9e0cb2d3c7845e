"""The seam of the store: a flat space of keys with a few operations, the same over a directory and over S3.

Keys are the paths of `tlgan.naming` (`blobs/3f/3fab...`). A token names the content that a read saw; it is opaque.
All operations raise `BackendError` when the store can't be reached or refuses, never with a secret in the text.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tlgan.errors import IntegrityError

CHUNK = 1 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """One object: `size` in bytes, `modified` with its time zone."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Capabilities:
    """What the backend was seen to do (not what it says): create a key once, replace a key only if unchanged."""

    create_only: bool
    compare_and_swap: bool
    note: str = ""


class Store(Protocol):
    """A reader sees an object whole or not at all, where the backend can promise it."""

    @property
    def url(self) -> str:
        """Without user info: fit for messages."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Finds out on the first call, which may write a few small objects below `probe/`."""
        ...

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        """Creates or replaces. With `sha256`, other bytes raise `IntegrityError` and nothing is stored."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """True when this call created the key. Of several callers one wins, if `capabilities.create_only`."""
        ...

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Replaces the content that `expected` names (None: the key must not exist); returns the new token.

        Raises `Conflict` when somebody else was first, `BackendError` when the backend can't compare.
        """
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Raises `NotFound`; `IntegrityError` when the object is larger than `max_bytes`."""
        ...

    def read(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        """Content and token; errors as `get`."""
        ...

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` up to, not including, `end`; fewer when the object ends before. Raises `NotFound`."""
        ...

    def download(self, key: str, dest: Path, *, sha256: str | None = None, size: int | None = None) -> None:
        """Streams to a new file `dest`. Raises `NotFound`, `IntegrityError`; after an error `dest` does not exist."""
        ...

    def head(self, key: str) -> ObjectInfo | None: ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All keys that start with `prefix`, in order."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """What follows `prefix` up to the next slash, of keys that have one there: each once, in the order of `list`.

        `prefix` ends with a slash: with `runs/`, the ids of the runs, in as many requests as there are thousands of them.
        """
        ...

    def delete(self, key: str) -> None:
        """A key that does not exist is no error."""
        ...


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(place: str, expected: str, found: str) -> None:
    """Raises `IntegrityError` unless equal."""
    if found != expected:
        raise IntegrityError(
            f"{place} does not match its digest: expected sha256 {expected}, received {found}",
            hint="the bytes are damaged; `tlgan artifact verify --full` lists every damaged file of an artifact",
        )


def too_large(place: str, size: int, limit: int) -> IntegrityError:
    return IntegrityError(f"{place} has {size} bytes; at most {limit} are expected there")


_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s'\"<>?#]*)([?#][^\s'\"<>]*)?", re.IGNORECASE)


_SIGNED = re.compile(
    r"\b((?:x-amz-)?(?:signature|credential|security-token)|authorization)(\s*[=:]\s*)(?:AWS4-HMAC-SHA256\s+)?[^\s,<>&]+",
    re.IGNORECASE,
)
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")


def scrub(text: object) -> str:
    """`text` with user info and query (where signatures are) cut out of every URL, and without what signs a request."""

    def clean(match: re.Match[str]) -> str:
        scheme, rest = match[1], match[2]
        host = rest.partition("/")[0]
        if "@" in rest and not re.fullmatch(r"[^:@]*(:\d+)?", host):  # a secret key may hold a slash
            rest = rest.rpartition("@")[2]
        return f"{scheme}://{rest}"

    said = _SIGNED.sub(r"\1\2***", _URL.sub(clean, str(text)))
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        said = said.replace(secret, "***")
    return said
