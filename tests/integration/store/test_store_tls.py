"""The store over https, with a certificate authority of the tests' own, and what a client must not send there."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from servers import S3Server

from cluster.store import ArtifactStore, open_store
from cluster.store.s3 import S3Store
from tlgan.errors import BackendError

SERVERS = ["moto", "rclone", "rgw"]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(f"{request.param}_tls_server")
    assert found.endpoint.startswith("https://")
    return found


def test_push_and_pull(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.use(monkeypatch)
    store = open_store(f"s3://{server.new_bucket()}/models")
    assert isinstance(store, S3Store)
    sent: list[dict[str, bytes]] = []
    store.client.meta.events.register("before-send.s3", lambda request, **_: sent.append(dict(request.headers)))
    artifacts = ArtifactStore(store, tmp_path / "cache")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small.bin").write_bytes(b"small")
    (tmp_path / "model" / "large.bin").write_text(os.urandom(9 << 20).hex())  # goes up in parts
    pushed = artifacts.push("digits32", tmp_path / "model", kind="files")
    pulled = artifacts.pull("digits32:latest", tmp_path / "pulled")
    for path in (tmp_path / "model").iterdir():
        assert (pulled / path.name).read_bytes() == path.read_bytes()
    assert artifacts.verify(pushed.ref, full=True).ok
    assert store.capabilities.compare_and_swap == (server.name != "rclone")
    assert len(sent) > 10
    for headers in sent:
        names = {name.lower() for name in headers}
        assert not names & {"x-amz-trailer", "transfer-encoding"}
        assert b"aws-chunked" not in (headers.get("Content-Encoding") or b"")


@pytest.mark.parametrize("name", ["rclone", "rgw"])
def test_why_no_checksum_trailers(name: str, request: pytest.FixtureRequest) -> None:
    """The default of boto3 over https is a checksum after the body, which these two refuse."""
    server: S3Server = request.getfixturevalue(f"{name}_tls_server")
    session = boto3.session.Session("tlgan-test-key", "tlgan-test-secret", region_name="us-east-1")
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    client = session.client("s3", endpoint_url=server.endpoint, config=config, verify=str(server.ca))
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=server.new_bucket(), Key="a", Body=b"1")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 411


def test_a_stranger_is_not_trusted(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.use(monkeypatch)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(BackendError, match=r"can't be reached.*certificate verify failed") as error:
        open_store("s3://bucket/models").get("a")
    assert "AWS_CA_BUNDLE" in str(error.value.hint)


def test_a_missing_ca_file_is_named(moto_tls_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_tls_server.use(monkeypatch)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/does/not/exist.pem")
    with pytest.raises(BackendError, match="can't be reached") as error:
        open_store("s3://bucket/models").get("a")
    assert error.value.hint == "AWS_CA_BUNDLE is /does/not/exist.pem, which does not exist"
