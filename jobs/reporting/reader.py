"""Reading the store for a report: several objects at a time, and what is missing or damaged is left out, not refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cluster.runs import RunRecord, Runs
from cluster.store import ArtifactStore
from cluster.store.layout import blob_key
from cluster.store.transfer import in_parallel
from tlgan.errors import IntegrityError, NotFound, SpecError
from tlgan.manifest import ArtifactRef, Manifest

Event = dict[str, Any]
MAX_PICTURE = 64 << 20
MAX_SEGMENT = 64 << 20


class Reader:
    """Manifests, events and records are read once."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts
        self.runs = Runs(artifacts.store)
        self._manifests: dict[str, Manifest | None] = {}
        self._records: dict[str, RunRecord | None] = {}
        self._events: dict[str, list[Event]] = {}

    def record(self, run_id: str) -> RunRecord | None:
        if run_id not in self._records:
            self._records[run_id] = self.runs.find(run_id)
        return self._records[run_id]

    def manifest(self, ref: str, digest: str) -> Manifest | None:
        """The artifact behind an input or output of a run; None when it lives outside the store, is gone or damaged."""
        if digest not in self._manifests:
            try:
                pinned = ArtifactRef(ArtifactRef.parse(ref).name, digest=digest)
                self._manifests[digest] = self.artifacts.resolve(pinned)
            except (SpecError, NotFound, IntegrityError):
                self._manifests[digest] = None
        return self._manifests[digest]

    def file(self, manifest: Manifest, path: str) -> bytes | None:
        """One small file of an artifact, verified."""
        entry = next((file for file in manifest.files if file.path == path), None)
        data = entry and self.object(blob_key(entry))
        return data if entry and data and hashlib.sha256(data).hexdigest() == entry.sha256 else None

    def object(self, key: str) -> bytes | None:
        try:
            return self.artifacts.store.get(key, max_bytes=MAX_PICTURE)
        except (NotFound, IntegrityError):
            return None

    def objects(self, keys: list[str]) -> list[bytes | None]:
        return in_parallel(self.object, keys, self.artifacts.threads)

    def events(self, run: str) -> list[Event]:
        """Events of a run or of `<sweep>/trials/<n>`, oldest first."""
        if run not in self._events:
            store = self.artifacts.store
            keys = [info.key for info in store.list(f"runs/{run}/events/")]
            segments = in_parallel(lambda key: store.get(key, max_bytes=MAX_SEGMENT), keys, self.artifacts.threads)
            self._events[run] = [json.loads(line) for segment in segments for line in segment.splitlines()]
        return self._events[run]
