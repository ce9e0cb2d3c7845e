"""Secrets are planted wherever a person may have one; afterwards no byte that was printed, logged or stored holds them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from echo_server import EchoServer
from servers import S3Server, moto_server  # noqa: F401

from cluster.store import ArtifactStore, open_store
from cluster.store.base import scrub
from jobs.cli import main

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted/secret+Key1",
    "AWS_SESSION_TOKEN": "planted-session-token2",
    "AWS_ACCESS_KEY_ID": "PLANTEDACCESSKEY3",
    "MY_SERVICE_PASSWORD": "planted-password4",
    "HF_TOKEN": "planted-token5",
    "RAY_AUTH_TOKEN": "planted-ray-token6",
}
SECRETS = [value for name, value in PLANTED.items() if name != "AWS_ACCESS_KEY_ID"]


@pytest.fixture
def planted(
    monkeypatch: pytest.MonkeyPatch, workdir: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[list[str]]:
    """The environment with secrets; at the end nothing that was printed, logged or written holds one of the list."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TLGAN_CACHE", str(workdir / "cache"))
    caplog.set_level(logging.DEBUG, "tlgan")
    secrets = list(SECRETS)
    yield secrets
    out, err = capfd.readouterr()
    said = "\n".join([out, err, *(record.getMessage() for record in caplog.records if record.name.startswith("tlgan"))])
    written = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.suffix != ".spec"}
    for secret in secrets:
        assert secret not in said
        assert [path for path, data in written.items() if secret.encode() in data] == []


@pytest.fixture
def files(workdir: Path) -> Path:
    (workdir / "model").mkdir()
    (workdir / "model" / "notes.txt").write_text("hello")
    return workdir / "model"


VERBS = [
    ["pull", "notes:latest"],
    ["pull", "notes:latest", "dest"],
    ["artifact", "ls"],
    ["artifact", "show", "notes:latest"],
    ["artifact", "lineage", "notes:latest"],
    ["artifact", "verify", "notes:latest", "--full"],
    ["artifact", "alias", "notes", "best", "latest"],
    ["artifact", "gc"],
    ["config", "show"],
    ["ls"],
    ["pull", "none:latest"],
]


def test_every_verb_on_a_server(moto_server: S3Server, planted: list[str], files: Path) -> None:  # noqa: F811
    bucket = moto_server.new_bucket()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLGAN_S3_ENDPOINT", moto_server.endpoint)
        patch.setenv("TLGAN_STORE", f"s3://{bucket}/models")
        assert main(["push", str(files), "notes", "-v"]) == 0
        for verb in VERBS:
            assert main([*verb, "-v"]) in (0, 3), verb
        store = open_store()
        assert len(pickle.dumps(ArtifactStore(store))) < 2000
        for info in store.list():
            data = store.get(info.key)
            for secret in planted:
                assert secret.encode() not in data, info.key
        assert all(secret.encode() not in pickle.dumps(store) for secret in planted)


@pytest.mark.parametrize("status", [400, 403])
def test_a_server_that_repeats_what_it_heard(planted: list[str], files: Path, status: int) -> None:
    """Its error holds the headers of the request, with the signature, and a signed address."""
    with EchoServer(status) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLGAN_S3_ENDPOINT", server.endpoint)
        patch.setenv("TLGAN_STORE", "s3://bucket/models")
        for options in (["-v"], ["--json"]):
            assert main(["push", str(files), "notes", *options]) != 0
            assert main(["pull", "notes:latest", *options]) != 0
        planted += [signature for signature in server.signatures if signature]
    assert len(planted) > len(SECRETS)


def test_a_server_that_is_not_there(planted: list[str], files: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLGAN_S3_ENDPOINT", "http://127.0.0.1:9")
        patch.setattr("cluster.store.s3.ATTEMPTS", 1)
        for options in (["-v"], ["--json"]):
            assert main(["push", str(files), "notes", "--store", "s3://bucket/models", *options]) == 5


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:url-password7@bucket/models",
        "s3://AKIA:url/password7@bucket/models",
        "https://user:url-password7@host:9000/bucket",
        "s3://bucket/models?X-Amz-Signature=url-password7",
        "https://host/bucket?X-Amz-Signature=url-password7#x",
        "file://user:url-password7@host/path",
    ],
)
def test_secrets_in_the_address_of_a_store(planted: list[str], files: Path, url: str) -> None:
    planted += ["url-password7", "password7"]
    with pytest.MonkeyPatch.context() as patch:
        for options in ([], ["-v"], ["--json"]):
            assert main(["push", str(files), "notes", "--store", url, *options]) == 2
            assert main(["artifact", "ls", "--store", url, *options]) == 2
        patch.setenv("TLGAN_STORE", url)
        assert main(["artifact", "ls", "-v"]) == 2
        assert main(["config", "show"]) == 0
        patch.setenv("TLGAN_S3_ENDPOINT", url)
        patch.setenv("TLGAN_STORE", "s3://bucket/models")
        assert main(["artifact", "ls", "-v"]) == 2


SPEC = """
version: 1
kind: pretrain
name: leaky
data: {source: parquet, path: "%s", resolution: 32}
model: {arch: dcgan, resolution: 32, channels: 1, width: 8}
train: {kimg: 0.1, batch_size: 4}
output: {artifact: leaky}
"""


@pytest.mark.parametrize(
    "path", ["s3://AKIA:url-password7@bucket/data", "https://user:url-password7@host/x.parquet?sig=url-password7"]
)
def test_secrets_in_a_spec_reach_no_record(planted: list[str], workdir: Path, path: str) -> None:
    planted += ["url-password7"]
    (workdir / "leaky.spec").write_text(SPEC % path)
    for verb in ("validate", "run"):
        for options in ([], ["--json"]):
            assert main([verb, str(workdir / "leaky.spec"), *options]) != 0


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://u:p@h:9000/b/k?X-Amz-Signature=abc&x=1 is gone", "http://h:9000/b/k is gone"),
        ("s3://k:s/e+c@bucket/x", "s3://bucket/x"),
        ("see https://h/p#token=abc.", "see https://h/p"),
        ("'https://u@h'", "'https://h'"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=AK/1/s3, Signature=0a1b", "Authorization: ***, Signature=***"),
        ("x-amz-security-token: abc/def+g== <Signature>", "x-amz-security-token: *** <Signature>"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_scrubbing(text: str, clean: str) -> None:
    assert scrub(text) == clean
