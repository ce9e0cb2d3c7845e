"""The cache keeps to its cap: the oldest goes first, what is in use stays, and nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from dialects import Dialect, Proxy
from servers import S3Server, moto_server  # noqa: F401

from cluster.store import ArtifactStore, open_store, trimming
from cluster.store import cache as store_cache
from cluster.store import locks as store_locks
from tlgan.errors import SpecError

Make = Callable[..., Path]


@pytest.fixture(params=["links", "copies"])
def artifacts(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> ArtifactStore:
    """Three artifacts of 1000 bytes of their own; each has 500 bytes that all share."""
    if request.param == "copies":

        def refuse(*_: object, **__: object) -> None:
            raise OSError("no hard links here")

        monkeypatch.setattr(store_cache.os, "link", refuse)
    found = ArtifactStore(open_store(str(tmp_path / "store")), tmp_path / "cache")
    for name in ("one", "two", "three"):
        files = {"own.txt": name.encode() * (1000 // len(name)), "shared.txt": b"s" * 500}
        found.push(name, make(name, files), kind="files")
    return found


def used_ago(path: Path, seconds: float) -> None:
    """As if it had last been used so long ago."""
    then = time.time_ns() - int(seconds * 1e9)
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        os.utime(file, ns=(then, then if file.is_dir() else file.stat().st_mtime_ns))


def everything_used_ago(cache: Path, seconds: float) -> None:
    for item in trimming.cached_items(cache):
        used_ago(item.path, seconds)


def held(cache: Path) -> int:
    return trimming.size_of(list(trimming.cached_items(cache)))


def test_the_oldest_goes_first(artifacts: ArtifactStore, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paths = {}
    for age, name in ((9000, "two"), (8000, "three"), (7000, "one")):
        paths[name] = artifacts.pull(f"{name}:latest")
        used_ago(paths[name], age)
    for item in trimming.cached_items(cache):
        if item.is_blob and item.path.stat().st_nlink == 1:  # copies: the blobs have times of their own
            used_ago(item.path, 10_000)
    before = held(cache)
    assert trimming.trim(cache, before) == before
    trimming.trim(cache, 3100)
    assert [name for name, path in paths.items() if path.exists()] == ["three", "one"]
    assert held(cache) <= 3100
    for name in ("three", "one"):  # what stayed is whole without another download
        fresh = ArtifactStore(artifacts.store, cache)
        assert fresh.pull(f"{name}:latest") == paths[name]
        assert fresh.stats.downloaded == 0
    assert (artifacts.pull("two:latest") / "own.txt").read_bytes() == b"two" * 333


def test_what_was_used_just_now_stays(artifacts: ArtifactStore, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, two = artifacts.pull("one:latest"), artifacts.pull("two:latest")
    everything_used_ago(cache, 7200)
    artifacts.pull("one:latest")
    trimming.trim(cache, 0)
    assert not two.exists()
    assert (one / "own.txt").read_bytes() == b"one" * 333
    fresh = ArtifactStore(artifacts.store, cache)
    fresh.pull("one:latest")
    assert fresh.stats.downloaded == 0


def test_a_pull_makes_room_by_itself(
    artifacts: ArtifactStore, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    artifacts.push("other", make("other", {"x.txt": b"x" * 700}), kind="files")
    monkeypatch.setenv("TLGAN_CACHE_BYTES", "2kB")
    one = artifacts.pull("one:latest")
    everything_used_ago(cache, 7200)
    artifacts.pull("other:latest", tmp_path / "dest")
    assert not one.exists()
    assert held(cache) <= 2000
    monkeypatch.setenv("TLGAN_CACHE_BYTES", "none")
    everything_used_ago(cache, 7200)
    artifacts.pull("three:latest")
    artifacts.pull("one:latest")
    assert held(cache) > 2000


def test_a_folder_stays_while_its_process_lives(
    artifacts: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "IDLE", 0.8)
    monkeypatch.setattr(trimming, "RESOLUTION", 0.0)
    script = (
        "import sys, pathlib, time; from cluster.store import ArtifactStore, trimming\n"
        "trimming.IDLE, trimming.RESOLUTION = 0.8, 0.0\n"
        "print(ArtifactStore(sys.argv[1], pathlib.Path(sys.argv[2])).pull('one:latest'), flush=True)\n"
        "sys.stdin.read()"
    )
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", script, artifacts.url, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        for _ in range(3):
            time.sleep(0.7)
            trimming.trim(cache, 0)
            assert (path / "own.txt").read_bytes() == b"one" * 333
        process.communicate()
    time.sleep(1.0)
    trimming.trim(cache, 0)
    assert not path.exists()
    assert held(cache) == 0


def test_open_files_outlive_their_folder(artifacts: ArtifactStore, tmp_path: Path) -> None:
    with (artifacts.pull("one:latest") / "own.txt").open("rb") as file:
        trimming.trim(tmp_path / "cache", 0, idle=-1)
        assert held(tmp_path / "cache") == 0
        assert file.read() == b"one" * 333


def test_only_its_own_files_go(artifacts: ArtifactStore, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    artifacts.pull("one:latest")
    others = ["datasets/a/images.npy", "blobs/README", "blobs/aa/note", "artifacts/mine/x", "journal/1.json"]
    for other in others:
        (cache / other).parent.mkdir(parents=True, exist_ok=True)
        (cache / other).write_bytes(b"x" * 5000)
    trimming.trim(cache, 0, idle=-1)
    assert [other for other in others if not (cache / other).exists()] == []
    assert held(cache) == 0
    assert list((cache / "locks").glob("?" * 64)) == []  # the locks of what went, too


def test_what_somebody_holds_the_lock_of_stays(artifacts: ArtifactStore, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = artifacts.pull("one:latest")
    with store_locks.file_lock(cache / "locks" / path.name):
        trimming.trim(cache, 0, idle=-1)
        assert path.exists()
    trimming.trim(cache, 0, idle=-1)
    assert not path.exists()


def test_a_removed_lock_file_does_not_split_the_waiters(tmp_path: Path) -> None:
    """Whoever waits for a lock whose file its holder removes must not hold it beside a newcomer."""
    lock, order = tmp_path / "lock", []
    script = (
        "import sys, pathlib; from cluster.store.locks import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", script, str(lock)]
    with store_locks.file_lock(lock):
        waiter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(0.4)
        lock.unlink()
    assert waiter.stdout is not None
    order.append(waiter.stdout.readline().strip())
    with pytest.raises(TimeoutError), store_locks.file_lock(lock, timeout=0.2):
        order.append("split")
    waiter.communicate("\n")
    assert order == ["held"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50 * 10**9), ("1.5GiB", 3 * 2**29), ("1000", 1000), ("10 MB", 10**7), ("2T", 2 * 10**12), ("none", None)],
)
def test_the_cap_as_written(text: str, size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGAN_CACHE_BYTES", text)
    assert trimming.cap_bytes(tmp_path / "not" / "yet") == size


def test_the_default_is_a_share_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLGAN_CACHE_BYTES", raising=False)
    stat = os.statvfs(tmp_path)
    assert trimming.cap_bytes(tmp_path / "not" / "yet") == int(stat.f_frsize * stat.f_blocks * 0.2)
    for bad in ("lots", "-5GB", "120%", "5XB"):
        monkeypatch.setenv("TLGAN_CACHE_BYTES", bad)
        with pytest.raises(SpecError, match=f"TLGAN_CACHE_BYTES is '{bad}'"):
            trimming.cap_bytes(tmp_path)


PULL = """
import sys, pathlib
from cluster.store import ArtifactStore, locks
if sys.argv[3] == "existence":
    locks.fcntl = None
path = ArtifactStore(sys.argv[1], pathlib.Path(sys.argv[2])).pull("digits32:latest")
print(sum(file.stat().st_size for file in path.rglob("*.bin")))
"""


@pytest.mark.parametrize("lock", ["flock", "existence"])
@pytest.mark.usefixtures("moto_server")
def test_processes_ask_the_server_once_for_each_blob(
    moto_server: S3Server,  # noqa: F811
    tmp_path: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    lock: str,
) -> None:
    moto_server.use(monkeypatch)
    url = f"s3://{moto_server.new_bucket()}"
    files = {f"{number}.bin": b"%d" % number * 20_000 for number in range(5)}
    ArtifactStore(url, tmp_path / "other").push("digits32", make("model", files), kind="files")
    proxy = Proxy(moto_server, Dialect())
    try:
        monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
        command = [sys.executable, "-c", PULL, url, str(tmp_path / "cache"), lock]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["100000"] * 4
        asked = Counter(request for request in proxy.requests if "/blobs/" in request and request.startswith("GET"))
        assert len(asked) == 5
        assert set(asked.values()) == {1}
    finally:
        proxy.http.shutdown()
        proxy.http.server_close()
