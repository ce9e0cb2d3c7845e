"""The store in memory keeps the contract of the seam, so that what is proved over it counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from faults.memory_store import MemoryStore

from cluster.store import ArtifactStore
from cluster.store.base import Store
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound


def test_the_seam(tmp_path: Path) -> None:
    store: Store = MemoryStore()
    assert store.head("a/b") is None
    with pytest.raises(NotFound):
        store.get("a/b")
    assert store.put_if_absent("a/b", b"one")
    assert not store.put_if_absent("a/b", b"two")
    data, token = store.read("a/b")
    token = store.compare_and_swap("a/b", b"three", token)
    with pytest.raises(Conflict):
        store.compare_and_swap("a/b", b"four", None)
    assert (data, store.get("a/b"), store.get_range("a/b", 1, 3)) == (b"one", b"three", b"hr")
    store.put("a/c/d", b"")
    assert [info.key for info in store.list("a/")] == ["a/b", "a/c/d"]
    assert list(store.folders("a/")) == ["c"]
    with pytest.raises(IntegrityError):
        store.put("x", b"x", sha256="0" * 64)
    with pytest.raises(IntegrityError):
        store.download("a/b", tmp_path / "file", sha256="0" * 64)
    assert not (tmp_path / "file").exists()
    store.delete("a/b")
    store.delete("a/b")
    assert store.head("a/b") is None


def test_what_it_can_not_do() -> None:
    weak = MemoryStore(create_only=False, compare_and_swap=False)
    with pytest.raises(BackendError, match="compare and swap"):
        weak.compare_and_swap("a", b"", None)
    assert weak.put_if_absent("a", b"1")


def test_its_clock() -> None:
    store = MemoryStore(clock=lambda: datetime(2030, 1, 1, tzinfo=UTC))
    store.put("a", b"")
    store.advance(timedelta(days=1))
    store.put("b", b"")
    assert [info.modified.day for info in store.list()] == [1, 2]


def test_artifacts(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    artifacts = ArtifactStore(MemoryStore(), tmp_path / "cache")
    artifacts.push("model", tmp_path / "model.bin", kind="files")
    assert artifacts.verify("model:latest", full=True).ok
    assert (artifacts.pull("model:latest") / "model.bin").read_bytes() == b"weights"
