"""A store whose calls go wrong at random: it fails, answers late, damages what it sends, or says the wrong thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from cluster.store.base import ObjectInfo, check_digest, too_large
from tests.faults.memory_store import MemoryStore, token
from tlgan.errors import BackendError, Conflict

READS = {"get", "read", "get_range", "download"}
CONDITIONS = {"put_if_absent", "compare_and_swap"}
ANY = ("fails before", "fails after", "slow", "503")
KINDS = (*ANY, "truncated", "flipped bit", "409", "412")


class Faulty:
    """Passes calls on to `inner`; a share `rate` of them goes wrong. `sleep` is what others do during a slow call.

    fails before, after    the call raises; in the second case it was carried out, its reply was lost
    503                    this call and up to three that follow raise
    truncated, flipped     what a read gives; a put that is damaged on the way is refused, as servers do by Content-MD5
    409                    a conditional write meets another, and is not carried out
    412                    it was carried out, but the client's own second try is told that something is there
    """

    def __init__(self, inner: MemoryStore, random: Random, sleep: Callable[[], None] = lambda: None) -> None:
        self.inner, self.random, self.sleep = inner, random, sleep
        self._rate = 0.0
        self.seen: Counter[str] = Counter()
        self._down = 0
        self.url, self.capabilities = inner.url, inner.capabilities

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate, self._down = rate, 0

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        self._call("put", lambda: self.inner.put(key, data, sha256=sha256))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self._call("put_if_absent", lambda: self.inner.put_if_absent(key, data)))

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> str:
        return str(self._call("compare_and_swap", lambda: self.inner.compare_and_swap(key, data, expected)))

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        return bytes(self._call("get", lambda: self.inner.get(key, max_bytes=max_bytes)))

    def read(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        tokens: list[str] = []

        def both() -> bytes:
            data, token = self.inner.read(key, max_bytes=max_bytes)
            tokens.append(token)
            return data

        return bytes(self._call("read", both)), tokens[-1]

    def get_range(self, key: str, start: int, end: int) -> bytes:
        return bytes(self._call("get_range", lambda: self.inner.get_range(key, start, end)))

    def download(self, key: str, dest: Path, *, sha256: str | None = None, size: int | None = None) -> None:
        data = bytes(self._call("download", lambda: self.inner.get(key)))
        if size is not None and len(data) > size:
            raise too_large(f"{key} in {self.url}", len(data), size)
        if sha256 is not None:
            check_digest(f"{key} in {self.url}", sha256, token(data))
        with dest.open("xb") as target:
            target.write(data)

    def head(self, key: str) -> ObjectInfo | None:
        return self._call("head", lambda: self.inner.head(key))  # type: ignore[no-any-return]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._call("list", lambda: list(self.inner.list(prefix))))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._call("folders", lambda: list(self.inner.folders(prefix))))

    def delete(self, key: str) -> None:
        self._call("delete", lambda: self.inner.delete(key))

    def _call(self, name: str, carry_out: Callable[[], Any]) -> Any:
        if self._down:
            self._down -= 1
            raise BackendError(f"{name}: 503, still")
        if self.random.random() >= self._rate:
            return carry_out()
        kinds = ANY + (("truncated", "flipped bit") if name in READS or name == "put" else ())
        kind = self.random.choice(kinds + (("409", "412") if name in CONDITIONS else ()))
        self.seen[kind] += 1
        return self._go_wrong(kind, name, carry_out)

    def _go_wrong(self, kind: str, name: str, carry_out: Callable[[], Any]) -> Any:
        error = BackendError(f"{name}: {kind}")
        if kind == "slow":
            self.sleep()
            return carry_out()
        if kind == "503":
            self._down = self.random.randrange(4)
        if kind in ("fails before", "503") or (kind == "409" and name == "put_if_absent") or name == "put":
            if kind == "fails after":
                carry_out()
            raise error
        if kind == "409":
            raise Conflict(error.message)
        result = carry_out()
        if kind in ("truncated", "flipped bit"):
            return damaged(result, kind, self.random)
        if kind == "412":
            if name == "put_if_absent":
                return False
            raise Conflict(error.message)
        raise error


def damaged(data: bytes, kind: str, random: Random) -> bytes:
    """One bit flipped, or the end cut off."""
    if not data:
        return data
    at, bit = int(random.random() * len(data)), int(random.random() * 8)
    if kind == "truncated":
        return data[:at]
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
