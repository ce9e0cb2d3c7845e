"""A pull that fails at any one store call leaves nothing half-done. All the other operations: `tests/faults`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.store import ArtifactStore, Store, open_store
from tests.faults.breaking import Breaking
from tlgan.errors import BackendError, NotFound

FILES = {"a.bin": b"a" * 100, "b.bin": b"b" * 100}


def attempts(store: Store, cache: Path, act: Callable[[ArtifactStore], Any], after: bool) -> int:
    """Runs `act` with a failure at call 0, 1, ... until it goes through; the number of failures seen."""
    for at in range(1000):
        failing = Breaking(store, at, after=after)
        with contextlib.suppress(BackendError):
            act(ArtifactStore(failing, cache / str(at), threads=1))  # type: ignore[arg-type]
        if failing.count <= at:
            return at
    raise AssertionError("it never went through")


@pytest.mark.parametrize("after", [False, True])
def test_pull(tmp_path: Path, make: Callable[..., Path], after: bool) -> None:
    store = open_store(str(tmp_path / "store"))
    ArtifactStore(store).push("one", make("model", FILES), kind="files")
    dest = tmp_path / "dest"

    def pull(artifacts: ArtifactStore) -> None:
        try:
            artifacts.pull("one:latest", dest)
        except BackendError:
            assert not dest.exists()
            raise
        assert {path.name: path.read_bytes() for path in dest.iterdir()} == FILES

    assert attempts(store, tmp_path / "caches", pull, after) == 5  # format, alias, manifest, two blobs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["caches", "dest", "model", "store"]


def test_nothing_is_found_before_the_commit(tmp_path: Path, make: Callable[..., Path]) -> None:
    artifacts = ArtifactStore(open_store(str(tmp_path / "store")))
    artifacts.stage(make("model", FILES), pin="test")
    with pytest.raises(NotFound):
        artifacts.resolve("one:latest")
