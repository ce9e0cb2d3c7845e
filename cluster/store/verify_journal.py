"""The journal of a verification: which blobs of a store were hashed and found right, so that an interrupted one can go on.

One file a store in the node's cache, a JSON object a line; the first says what was asked for. A verification that came to its
end removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cluster.store.base import Store
from cluster.store.cache import cache_root
from tlgan.errors import BackendError
from tlgan.manifest import now_utc

MAX_AGE = timedelta(days=7)


class Journal:
    """`verified`: key -> size of blobs that an interrupted run has found right. Writers are threads of one process."""

    def __init__(self, store: Store, root: Path | None = None) -> None:
        place = f"{store.url} {getattr(store, 'endpoint', '')}"
        name = hashlib.sha256(place.encode()).hexdigest()[:16]
        self.path = (root or cache_root()) / "verify" / f"{name}.jsonl"
        self.verified: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self, **asked: Any) -> None:
        """Begins anew."""
        with _errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._write({"started": now_utc(), **asked})

    def resume(self) -> dict[str, Any] | None:
        """Reads what an interrupted run has left: what it was asked for, or None. Lines that were cut off don't count."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackendError(f"can't read {self.path}: {error.strerror}") from None
        asked: dict[str, Any] | None = None
        oldest = (datetime.now(UTC) - MAX_AGE).strftime("%Y-%m-%dT%H:%M:%S")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                if asked is None:
                    asked = dict(row)
                elif row["at"] >= oldest:
                    self.verified[str(row["key"])] = int(row["size"])
        return asked

    def add(self, key: str, size: int) -> None:
        with self._lock, _errors(self.path):
            self._write({"key": key, "size": size, "at": now_utc()})

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def _errors(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        hint = "set TLGAN_CACHE to a directory that can be written and has room"
        raise BackendError(f"can't write {path}: {error.strerror}", hint=hint) from None
