"""What the faults found, each alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, Version, leases, trash
from cluster.store.catalog import deleted_versions
from cluster.store.gc import Collector
from cluster.store.layout import alias_key, lease_key
from cluster.store.retention import Policy
from tests.faults.memory_store import MemoryStore
from tlgan.canonical import canonical_json
from tlgan.errors import IntegrityError
from tlgan.manifest import Manifest


class CutsManifests(MemoryStore):
    """Sends half of every manifest."""

    cutting = False

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        data = super().get(key, max_bytes=max_bytes)
        return data[: len(data) // 2] if self.cutting and key.startswith("versions/") else data


@pytest.fixture
def store() -> CutsManifests:
    return CutsManifests()


@pytest.fixture
def push(store: CutsManifests, tmp_path: Path) -> Callable[..., Manifest]:
    def build(content: str, **about: object) -> Manifest:
        (tmp_path / "weights.bin").write_text(content)
        artifacts = ArtifactStore(store, tmp_path / "cache")
        return artifacts.push("model", tmp_path / "weights.bin", kind="files", **about)  # type: ignore[arg-type]

    return build


def test_a_deletion_does_not_keep_half_a_manifest(store: CutsManifests, push: Callable[..., Manifest]) -> None:
    version = Version.of(push("1", aliases=()))
    store.cutting = True
    with pytest.raises(IntegrityError, match="is not deleted"):
        trash.remove(store, version)
    store.cutting = False
    assert store.head(version.key) is not None
    assert deleted_versions(store) == []


def test_a_lease_with_a_flipped_bit_stops_a_collection(store: CutsManifests) -> None:
    """It is a valid record, but it protects another key."""
    with leases.hold(store, ["blobs/ab/" + "ab" * 32]) as held:
        store.put("blobs/ab/" + "ab" * 32, b"being pushed")
        key = lease_key(held.lease.id)
        store.put(key, store.get(key).replace(b"ab" * 8, b"ab" * 7 + b"ac"))
        with pytest.raises(IntegrityError, match="checksum"):
            Collector(store, Policy(grace=timedelta(0))).plan(store.now)


def test_an_alias_written_without_a_checksum_is_read(
    store: CutsManifests, push: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = push("1")
    artifacts = ArtifactStore(store, tmp_path / "cache")
    record = artifacts.aliases("model")["latest"]
    store.put(alias_key("model", "latest"), canonical_json(record.model_dump(exclude_defaults=True)))
    assert b"check" not in store.get(alias_key("model", "latest"))
    assert artifacts.resolve("model:latest") == manifest
    assert artifacts.move_alias("model", "latest", push("2", aliases=()).digest).prev.digest == manifest.digest  # type: ignore[union-attr]


def test_a_move_whose_lease_was_broken_does_not_meet_itself(
    store: CutsManifests, push: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moved, then its lease turned out to be broken: done again under a new one, the expectation would not hold."""
    first, second = push("1"), push("2", aliases=())
    answers = iter([False, True])
    monkeypatch.setattr(leases.Held, "valid", lambda held: next(answers))
    moved = ArtifactStore(store, tmp_path / "cache").move_alias("model", "latest", second.digest, first.digest)
    assert moved.digest == second.digest
    assert list(answers) == []
