"""What a killed transfer leaves for the next one: small files in the node's cache, written whole or not at all.

They only say where to look. What the server has of an upload is asked of the server; what a download has is hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.store.cache import cache_root
from cluster.store.locks import file_lock

STALE_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Upload:
    """The upload of one content to one key, in parts of one size; `upload_id` is the server's name for it.

    `crc`: the server said that it holds each part against the CRC-32 sent with it.
    """

    endpoint: str | None
    bucket: str
    key: str
    sha256: str
    size: int
    part_size: int
    upload_id: str = ""
    crc: bool = False


class UploadJournal:
    """One file an upload. Where the cache can't be written, nothing is remembered and nothing fails."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root() / "uploads"

    @contextlib.contextmanager
    def holding(self, upload: Upload) -> Iterator[bool]:
        """Keeps other processes of this node off the upload. False: one has it, or nothing can be remembered here."""
        path = self._path(upload).with_suffix(".lock")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, timeout=0))
                held = True
            except (OSError, TimeoutError):
                held = False
            try:
                yield held
            finally:
                if held:
                    with contextlib.suppress(OSError):
                        path.unlink()

    def find(self, upload: Upload) -> Upload | None:
        """An earlier, unfinished upload of the same."""
        known = _read(self._path(upload))
        return known if known and replace(known, upload_id="", crc=False) == upload else None

    def write(self, upload: Upload) -> None:
        with contextlib.suppress(OSError):
            write_whole(self._path(upload), asdict(upload))

    def remove(self, upload: Upload) -> None:
        with contextlib.suppress(OSError):
            self._path(upload).unlink(missing_ok=True)

    def stale(self, endpoint: str | None, bucket: str) -> Iterator[Upload]:
        """Uploads into the bucket that nobody went on with for a week."""
        with contextlib.suppress(OSError):
            for path in sorted(self.root.iterdir()):
                if time.time() - path.stat().st_mtime < STALE_SECONDS:
                    continue
                if path.suffix != ".json" or (known := _read(path)) is None:
                    path.unlink(missing_ok=True)
                elif (known.endpoint, known.bucket) == (endpoint, bucket):
                    yield known

    def _path(self, upload: Upload) -> Path:
        fields = [upload.endpoint, upload.bucket, upload.key, upload.sha256, upload.size, upload.part_size]
        return self.root / f"{hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Upload | None:
    """None for a file that is not there or is no journal."""
    try:
        return Upload(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_whole(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(json.dumps(value))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
