"""`tlgan artifact copy` that is killed or interrupted: nothing partial is seen, and the same command sends only the rest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dialects import Dialect, Proxy
from servers import S3Server

from cluster.store import ArtifactStore, open_store

COUNT = 40


class SlowToWrite(Dialect):
    """Takes its time over every blob."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        if method == "PUT" and "/blobs/" in path:
            time.sleep(0.1)
        return None


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.minutes)])
def test_the_same_command_goes_on(
    moto_server: S3Server,
    tmp_path: Path,
    make: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
) -> None:
    moto_server.use(monkeypatch)
    source, url = str(tmp_path / "store"), f"s3://{moto_server.new_bucket()}"
    files = {f"{i:03}.bin": bytes([i]) * 1000 for i in range(COUNT)}
    pushed = ArtifactStore(open_store(source)).push("one", make("model", files), kind="files")
    proxy = Proxy(moto_server, SlowToWrite())
    cache = {"TLGAN_CACHE": str(tmp_path / "cache"), "TLGAN_S3_ENDPOINT": proxy.endpoint}
    command = [sys.executable, "-m", "jobs.cli", "artifact", "copy", "one:latest", url, "--store", source, "-v"]
    target = open_store(url)
    with subprocess.Popen(command, env=os.environ | cache, stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(600):
                if len(list(target.list("blobs/"))) > 8 or process.poll() is not None:
                    break
                time.sleep(0.05)
            process.send_signal(how)
            err = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "0 of 1 artifact arrived\nblobs that arrived stay" in err
        assert not list(target.list("leases/"))
    time.sleep(1)  # what was on its way through the proxy arrives
    there = len(list(target.list("blobs/")))
    assert 8 < there < COUNT
    assert ArtifactStore(target).versions("one") == []
    sent = len([line for line in proxy.requests if re.match(r"PUT .*/blobs/", line)])
    again = subprocess.run(command, env=os.environ | cache, capture_output=True, text=True, timeout=60, check=True)
    assert again.stdout == f"{pushed.ref}\n"
    assert f"{COUNT - there}.0 kB sent, {there}.0 kB there already" in again.stderr
    assert len([line for line in proxy.requests if re.match(r"PUT .*/blobs/", line)]) - sent == COUNT - there
    assert ArtifactStore(target).verify(pushed.ref, full=True).ok
    proxy.http.shutdown()
    proxy.http.server_close()
