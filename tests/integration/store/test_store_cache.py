"""The node's cache: one download per blob, and nothing unverified comes out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, open_store
from cluster.store import cache as store_cache
from tlgan.errors import BackendError

FILES = {"G/block0.safetensors": b"G" * 1000, "D/block0.safetensors": b"D" * 2000, "index.json": b"{}"}


@pytest.fixture
def artifacts(tmp_path: Path, make: Callable[..., Path]) -> ArtifactStore:
    found = ArtifactStore(open_store(str(tmp_path / "store")), tmp_path / "cache")
    found.push("digits32", make("model", FILES), kind="gan")
    return found


def test_a_second_pull_downloads_nothing(artifacts: ArtifactStore, tmp_path: Path) -> None:
    path = artifacts.pull("digits32:latest")
    assert artifacts.stats.downloaded == 3002
    other = ArtifactStore(artifacts.store, artifacts.cache_dir)
    assert other.pull("digits32:latest") == path
    other.pull("digits32:latest", tmp_path / "dest")
    assert other.stats.downloaded == 0


def test_a_default_cache_below_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "elsewhere"))
    (tmp_path / "file").write_bytes(b"x")
    artifacts = ArtifactStore(open_store(str(tmp_path / "store")))
    manifest = artifacts.push("one", tmp_path / "file", kind="files")
    path = artifacts.pull("one:latest")
    assert path == tmp_path / "elsewhere" / "store" / "artifacts" / manifest.digest


@pytest.mark.parametrize("links", [True, False])
def test_a_changed_file_is_noticed_and_replaced(
    artifacts: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise OSError("no hard links here")

        monkeypatch.setattr(store_cache.os, "link", refuse)
    path = artifacts.pull("digits32:latest")
    victim = path / "D" / "block0.safetensors"
    assert (victim.stat().st_nlink == 2) == links
    victim.chmod(0o644)
    with victim.open("r+b") as file:
        file.write(b"d")
    assert artifacts.pull("digits32:latest") == path
    assert victim.read_bytes() == FILES["D/block0.safetensors"]
    assert artifacts.stats.downloaded == 3002 + (2000 if links else 0)
    victim.unlink()
    artifacts.pull("digits32:latest")
    assert victim.read_bytes() == FILES["D/block0.safetensors"]


def test_a_touched_file_is_read_again_but_kept(artifacts: ArtifactStore) -> None:
    path = artifacts.pull("digits32:latest")
    os.utime(path / "index.json")
    artifacts.pull("digits32:latest")
    assert artifacts.stats.downloaded == 3002
    assert (path / "index.json").stat().st_mtime_ns == store_cache.VERIFIED_NS


def test_a_change_that_hides_is_found_on_the_way_out(artifacts: ArtifactStore, tmp_path: Path) -> None:
    victim = artifacts.pull("digits32:latest") / "index.json"
    stamp = victim.stat().st_mtime_ns
    victim.chmod(0o644)
    with victim.open("r+b") as file:
        file.write(b"[")
    os.utime(victim, ns=(stamp, stamp))
    assert (artifacts.pull("digits32:latest", tmp_path / "dest") / "index.json").read_bytes() == b"{}"


def test_changing_a_pulled_copy_leaves_the_cache_alone(artifacts: ArtifactStore, tmp_path: Path) -> None:
    dest = artifacts.pull("digits32:latest", tmp_path / "dest")
    with (dest / "index.json").open("r+b") as file:
        file.write(b"[")
    assert (artifacts.pull("digits32:latest") / "index.json").read_bytes() == b"{}"
    assert artifacts.stats.downloaded == 3002


def test_many_pulls_at_once_download_once(artifacts: ArtifactStore, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from cluster.store import ArtifactStore\n"
        "store = ArtifactStore(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "print(store.pull('digits32:latest')); print(store.stats.downloaded)"
    )
    command = [sys.executable, "-c", script, artifacts.url, str(artifacts.cache_dir)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        here = list(pool.map(artifacts.pull, ["digits32:latest"] * 8))
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert {str(path) for path in here} | {path for path, _ in said} == {str(here[0])}
    assert artifacts.stats.downloaded + sum(int(count) for _, count in said) == 3002
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def test_leftovers_of_killed_processes_go(
    artifacts: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = tmp_path / "cache" / "tmp" / "old"
    leftover.mkdir(parents=True)
    artifacts.pull("digits32:latest")
    assert leftover.exists()
    monkeypatch.setattr(store_cache, "LEFTOVER_SECONDS", -1)
    ArtifactStore(artifacts.store, tmp_path / "cache")._cache._sweep(leftover.parent)
    assert not leftover.exists()


def test_a_cache_that_can_not_be_written(artifacts: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="cache: can't use") as error:
        ArtifactStore(artifacts.store, tmp_path / "file" / "cache").pull("digits32:latest", tmp_path / "dest")
    assert "TLGAN_CACHE" in str(error.value.hint)
    assert not (tmp_path / "dest").exists()
