"""`tlgan doctor` and `artifact verify --server`: what they find, say and answer with."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dialects
import pytest
from dialects import Dialect, Proxy
from servers import S3Server, free_port

from cluster import doctor
from cluster.store import ArtifactStore
from cluster.store.s3 import S3Store
from jobs.cli import main

Open = Callable[[Dialect], tuple[S3Store, Proxy]]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """`ask("doctor", code=0)`: the JSON that the command printed; its error under "said"."""

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == code
        out, err = capsys.readouterr()
        found: dict[str, Any] = json.loads(out) if out else {}
        return found | {"said": json.loads(err)["error"] if err.startswith("{") else err}

    return run


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    main(list(arguments))
    return capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_folder_that_takes_no_files_is_told_though_the_rights_allow_them(ask: Ask) -> None:
    assert ask("doctor", "--store", "file:///proc/nix", code=0)["rights"]["write"] is False


def test_a_directory(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"file://{tmp_path}/store"
    found = ask("doctor", "--store", url)
    assert found["usable"]
    assert found["store"]["format"] is None
    assert not (tmp_path / "store").exists()
    (tmp_path / "file").write_bytes(b"1")
    ArtifactStore(url).push("one", tmp_path / "file", kind="files")
    found = ask("doctor", "--store", url)
    assert found["store"] | {"free_bytes": 0} == {
        "url": url, "endpoint": None, "reachable": True, "format": "tlgan-store 1", "free_bytes": 0,
    }  # fmt: skip
    assert found["rights"] == {"read": True, "write": True, "delete": True}
    assert found["cache"]["path"] == str(tmp_path / "cache")
    assert found["cache"]["writable"]
    assert found["ray"] == {"address": None, "reachable": None}
    assert "two people can move an alias at once: yes" in page(capsys, "doctor", "--store", url)
    (tmp_path / "store" / "FORMAT.json").write_text('{"format": "tlgan-store", "version": 7}')
    assert "has format tlgan-store 7" in ask("doctor", "--store", url, code=5)["said"]["message"]
    said = ask("artifact", "verify", "--server", "--store", url, code=2)["said"]
    assert "there is no server to ask" in said["message"]


@pytest.mark.parametrize(
    ("name", "swap", "said"),
    [
        ("moto", True, "ok  server    two people can move an alias at once: yes"),
        pytest.param("rgw", True, "(If-Match): yes, with bare etags", marks=pytest.mark.minutes),
        ("rclone", False, "!   server    two people can move an alias at once: no: one writer at a time"),
    ],
)
def test_servers(
    name: str,
    swap: bool,
    said: str,
    ask: Ask,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server: S3Server = request.getfixturevalue(f"{name}_server")
    server.use(monkeypatch)
    url = f"s3://{server.new_bucket()}/models"
    found = ask("doctor", "--store", url)
    assert found["capabilities"]["compare_and_swap"] == swap
    assert found["rights"] == {"read": True, "write": True, "delete": True}
    assert abs(found["clock_skew_seconds"]) < 5
    seen = found["server"]["seen"]
    text = page(capsys, "doctor", "--store", url)
    assert said in text
    assert "--fresh asks again" in text
    assert ask("doctor", "--store", url)["server"]["seen"] == seen
    assert ask("doctor", "--store", url, "--fresh")["server"]["seen"] > seen
    table = page(capsys, "artifact", "verify", "--server", "--store", url)
    assert table.startswith(url)
    assert table.count("\n") == 10
    asked = ask("artifact", "verify", "--server", "--store", url)
    assert asked["endpoint"] == server.endpoint
    assert asked["capabilities"]["compare_and_swap"] == swap
    assert "looks at the server alone" in ask("artifact", "verify", "a:b", "--server", code=2)["said"]["message"]


def test_what_can_not_be_used(
    ask: Ask, moto_server: S3Server, rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.use(monkeypatch)
    found = ask("doctor", "--store", "s3://there-is-none/models", code=5)
    assert not found["usable"]
    assert not found["store"]["reachable"]
    assert "the bucket does not exist" in found["said"]["message"]
    assert found["cache"]["writable"]
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert "can't be reached" in ask("doctor", "--store", "s3://bucket/models", code=5)["said"]["message"]
    rclone_server.use(monkeypatch)
    url = f"s3://{rclone_server.new_bucket()}/models"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    found = ask("doctor", "--store", url, code=5)
    assert "refuses the credentials" in found["said"]["message"]
    assert "not-the-secret" not in json.dumps(found)


def test_rights_and_clock(behind: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    store, proxy = behind(dialects.Forbids("PUT", "POST", "DELETE"))
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
    found = ask("doctor", "--store", store.url)
    assert found["usable"]
    assert found["rights"] == {"read": True, "write": False, "delete": False}
    assert not found["capabilities"]["compare_and_swap"]
    proxy.dialect, proxy.ahead = dialects.Forbids("DELETE"), 100.0
    found = ask("doctor", "--store", store.url)
    assert found["rights"] == {"read": True, "write": True, "delete": False}
    assert -103 < found["clock_skew_seconds"] < -97
    clock = [problem for problem in found["problems"] if problem["area"] == "clock"]
    assert clock[0]["text"].endswith("s behind the server")
    assert "15 min" in clock[0]["hint"]


def test_leftovers(behind: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    store, proxy = behind(dialects.Forbids("DELETE"))
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
    ask("doctor", "--store", store.url)
    left = len(list(store.list("probe/")))
    assert left > 3
    proxy.dialect = Dialect()
    store.client.create_multipart_upload(Bucket=store.bucket, Key="models/blobs/big")
    monkeypatch.setattr(doctor, "UPLOAD_AGE", timedelta(days=36500))  # (moto gives all of them one old date)
    found = ask("doctor", "--fresh", "--store", store.url)
    assert found["store"]["unfinished_uploads"] == 0
    assert len(list(store.list("probe/"))) == left
    for age in ("LEFTOVER", "UPLOAD_AGE"):
        monkeypatch.setattr(doctor, age, timedelta(seconds=-5))
    found = ask("doctor", "--store", store.url)
    assert list(store.list("probe/")) == []
    assert found["store"]["unfinished_uploads"] == 1
    assert any("models/blobs/big" in problem["text"] for problem in found["problems"])


def test_a_reader_on_a_real_server(ask: Ask, rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{rgw_server.new_bucket(shared=True)}/models"
    for user, write in (("reader", False), ("worker", True)):
        rgw_server.as_user(user).use(monkeypatch)
        assert ask("doctor", "--store", url)["rights"] == {"read": True, "write": write, "delete": False}


def test_packages_and_ray(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: fits for name, _, _, fits in doctor.packages()}
    assert {"torch", "ray", "boto3", "pydantic"} <= set(rows)
    assert "moto" not in rows
    monkeypatch.setattr(doctor, "_pins", lambda path: {"boto3": "1.0.0"})
    assert not {name: fits for name, _, _, fits in doctor.packages()}["boto3"]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    found = ask("doctor", "--store", f"file://{tmp_path}/store")
    assert found["ray"]["reachable"] is False
    assert {problem["area"] for problem in found["problems"]} == {"packages", "ray"}
    assert found["usable"]


def test_a_cache_that_can_not_be_written(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "file"))
    found = ask("doctor", "--store", f"file://{tmp_path}/store")
    assert not found["cache"]["writable"]
    assert [problem["hint"] for problem in found["problems"]] == ["set TLGAN_CACHE to a directory that can be written"]


def test_the_target_that_runs_are_submitted_to(ask: Ask, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask("doctor", "--store", "store")
    assert found["target"] | {"nodes": None} == {"name": "local", "kind": "local", "reachable": True, "nodes": None}
    assert found["target"]["nodes"][0]["CPU"] >= 1
    address = f"http://127.0.0.1:{free_port()}"
    (workdir / "tlgan.yaml").write_text(
        f"targets:\n  lab: {{kind: ray, address: '{address}'}}\ndefaults: {{target: lab}}\n"
    )
    found = ask("doctor", "--store", "store")
    assert (found["target"]["name"], found["target"]["reachable"]) == ("lab", False)
    (problem,) = [problem for problem in found["problems"] if problem["area"] == "target"]
    assert address.removeprefix("http://") in problem["text"]
    assert found["usable"]
