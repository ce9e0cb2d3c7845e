"""Ctrl-C in the middle of `tlgan artifact verify` and `tlgan pull`: what was done counts, and the way to go on is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dialects import Dialect, Proxy
from servers import S3Server

from cluster.store import ArtifactStore, open_store

COUNT = 60


class SlowToRead(Dialect):
    """Takes its time over every blob."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        if method == "GET" and "/blobs/" in path:
            time.sleep(0.15)
        return None


class Slow:
    """A store with an artifact `one` of 60 blobs, behind a slow server."""

    def __init__(self, endpoint: str, url: str, folder: Path) -> None:
        self.url, self.cache = url, folder / "cache"
        self.slow = {**os.environ, "TLGAN_STORE": url, "TLGAN_S3_ENDPOINT": endpoint, "TLGAN_CACHE": str(self.cache)}

    def interrupted(self, *arguments: str, after: Callable[[], bool]) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        with subprocess.Popen(
            command, env=self.slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for _ in range(600):
                    if after() or process.poll() is not None:
                        break
                    time.sleep(0.05)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
        return process.returncode, out, err

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        return subprocess.run(command, env=self.slow, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def slow(
    moto_server: S3Server, tmp_path: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Slow]:
    moto_server.use(monkeypatch)
    url = f"s3://{moto_server.new_bucket()}"
    files = {f"{i:03}.bin": bytes([i]) * 1000 for i in range(COUNT)}
    ArtifactStore(open_store(url)).push("one", make("model", files), kind="files")
    proxy = Proxy(moto_server, SlowToRead())
    yield Slow(proxy.endpoint, url, tmp_path)
    proxy.http.shutdown()
    proxy.http.server_close()


def test_verify(slow: Slow) -> None:
    def some_are_read() -> bool:
        return sum(len(path.read_bytes().splitlines()) for path in slow.cache.glob("verify/*.jsonl")) > 8

    code, out, err = slow.interrupted("artifact", "verify", "--all", "--full", after=some_are_read)
    assert (code, out) == (130, "")
    assert "kB of 60.0 kB were read; go on with\n  tlgan artifact verify --all --resume\n" in err
    assert "Traceback" not in err
    done = slow.run("artifact", "verify", "--all", "--resume")
    assert done.returncode == 0
    assert "going on: " in done.stderr
    assert done.stdout == "1 artifact is whole: 60 blobs, 60.0 kB (every byte hashed)\n"
    assert not list(slow.cache.glob("verify/*"))


def test_pull(slow: Slow) -> None:
    def some_came() -> bool:
        return len(list(slow.cache.glob("store/blobs/*/*"))) > 8

    code, out, err = slow.interrupted("pull", "one:latest", "there", "--allow-unsafe", after=some_came)
    assert (code, out) == (130, "")
    assert "verified, and stay in the cache; the same command goes on from there" in err
    assert "Traceback" not in err
    there = len(list(slow.cache.glob("store/blobs/*/*")))
    assert 8 < there < COUNT
    done = slow.run("pull", "one:latest", "--allow-unsafe", "-v")
    assert done.returncode == 0
    assert f"{60 - there}.0 kB received, the rest was in the cache" in done.stderr
