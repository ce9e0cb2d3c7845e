"""A push or pull that fails at any one store call leaves nothing half-done, and doing it again succeeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.store import ArtifactStore, Store, open_store
from tlgan.errors import BackendError, NotFound

FILES = {"a.bin": b"a" * 100, "b.bin": b"b" * 100}
CALLS = {"put", "put_if_absent", "compare_and_swap", "get", "read", "download", "head", "list"}


class Failing:
    """Passes calls on, but the one with number `at` (from 0) fails, before or after it was carried out."""

    def __init__(self, store: Store, at: int, after: bool) -> None:
        self.store, self.at, self.after = store, at, after
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.store, name)
        if name not in CALLS:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            number, self.count = self.count, self.count + 1
            result = value(*args, **kwargs) if number != self.at or self.after else None
            if number == self.at:
                raise BackendError(f"call {number}, {name}, failed")
            return result

        return call


def attempts(store: Store, cache: Path, act: Callable[[ArtifactStore], Any], after: bool) -> int:
    """Runs `act` with a failure at call 0, 1, ... until it goes through; the number of failures seen."""
    for at in range(1000):
        failing = Failing(store, at, after)
        with contextlib.suppress(BackendError):
            act(ArtifactStore(failing, cache / str(at), threads=1))  # type: ignore[arg-type]
        if failing.count <= at:
            return at
    raise AssertionError("it never went through")


@pytest.mark.parametrize("after", [False, True])
def test_push(tmp_path: Path, make: Callable[..., Path], after: bool) -> None:
    source = make("model", FILES)
    for round_number in range(30):
        store = open_store(str(tmp_path / f"store{round_number}"))
        old = ArtifactStore(store).push("one", source / "a.bin", kind="files")
        failing = Failing(store, round_number, after)
        with contextlib.suppress(BackendError):
            pushing = ArtifactStore(failing, threads=1)  # type: ignore[arg-type]
            pushing.push("one", source, kind="files", aliases=["latest", "best"])
        seen = ArtifactStore(store, tmp_path / "cache")
        for version in seen.versions("one"):
            assert seen.verify(version.ref, full=True).ok
        latest = seen.resolve("one:latest")
        assert latest == old or len(latest.files) == 2
        new = seen.push("one", source, kind="files", aliases=["latest", "best"])
        assert len(seen.versions("one")) == 2
        assert seen.resolve("one:latest") == seen.resolve("one:best") == new
        assert seen.aliases("one")["latest"].prev.digest == old.digest  # type: ignore[union-attr]
        if failing.count <= round_number:
            assert round_number > 10
            return
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
    artifacts.stage(make("model", FILES))
    with pytest.raises(NotFound):
        artifacts.resolve("one:latest")
