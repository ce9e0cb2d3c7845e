"""A store in memory, with a clock of its own and the capabilities that a test wants.

`items` is the content, to look at and to damage. `put_if_absent` without `create_only` is a `head` and a `put`, as on a
real server that can't do better: whoever comes between is overwritten.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cluster.store.base import Capabilities, ObjectInfo, check_digest, too_large
from tlgan.errors import BackendError, Conflict, NotFound
from tlgan.naming import check_path


class MemoryStore:
    """Implements `cluster.store.base.Store`. Each call is atomic; threads may share it.

    `clock` gives the time that `modified` shows; `advance` moves it on for this store alone.
    """

    def __init__(
        self,
        *,
        create_only: bool = True,
        compare_and_swap: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        note = "" if create_only and compare_and_swap else "made so for a test"
        self.capabilities = Capabilities(create_only, compare_and_swap, note)
        self.items: dict[str, tuple[bytes, datetime]] = {}
        self.url = f"memory://{id(self):x}"
        self._clock, self._ahead = clock, timedelta(0)
        self._lock = threading.RLock()

    @property
    def now(self) -> datetime:
        return self._clock() + self._ahead

    def advance(self, time: timedelta) -> None:
        self._ahead += time

    def put(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> None:
        content = data if isinstance(data, bytes) else data.read_bytes()
        if sha256 is not None:
            check_digest(str(data) if isinstance(data, Path) else key, sha256, token(content))
        with self._lock:
            self.items[check_path(key)] = content, self.now

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not self.capabilities.create_only:
            if self.head(key) is not None:
                return False
            self.put(key, data)
            return True
        with self._lock:
            if check_path(key) in self.items:
                return False
            self.items[key] = data, self.now
            return True

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> str:
        if not self.capabilities.compare_and_swap:
            raise BackendError(f"store {self.url} can't compare and swap: {self.capabilities.note}")
        with self._lock:
            current = token(self.items[key][0]) if check_path(key) in self.items else None
            if current != expected:
                raise Conflict(f"{key} in {self.url} was changed by somebody else")
            self.items[key] = data, self.now
            return token(data)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        with self._lock:
            if check_path(key) not in self.items:
                raise NotFound(f"{key} does not exist in {self.url}")
            data = self.items[key][0]
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(f"{key} in {self.url}", len(data), max_bytes)
        return data

    def read(self, key: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        data = self.get(key, max_bytes=max_bytes)
        return data, token(data)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        return self.get(key)[start:end]

    def download(self, key: str, dest: Path, *, sha256: str | None = None, size: int | None = None) -> None:
        data = self.get(key)
        if size is not None and len(data) > size:
            raise too_large(f"{key} in {self.url}", len(data), size)
        if sha256 is not None:
            check_digest(f"{key} in {self.url}", sha256, token(data))
        with dest.open("xb") as target:
            target.write(data)

    def head(self, key: str) -> ObjectInfo | None:
        with self._lock:
            found = self.items.get(check_path(key))
        return ObjectInfo(key, len(found[0]), found[1]) if found else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """As it was at the call, not as it is when the last key is asked for."""
        with self._lock:
            found = sorted((key, item) for key, item in self.items.items() if key.startswith(prefix))
        return (ObjectInfo(key, len(data), modified) for key, (data, modified) in found)

    def folders(self, prefix: str) -> Iterator[str]:
        below = (info.key.removeprefix(prefix) for info in self.list(prefix))
        return iter(sorted({name.partition("/")[0] for name in below if "/" in name}, key=lambda name: name + "/"))

    def delete(self, key: str) -> None:
        with self._lock:
            self.items.pop(check_path(key), None)


def token(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
