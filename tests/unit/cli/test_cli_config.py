"""Settings: which of them wins, and that files with mistakes or secrets are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.config import export_settings, project_file, read_settings, read_targets, user_file
from tlgan.errors import SpecError


@pytest.fixture
def home(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its own settings folder and no variables."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(workdir / "home"))
    for name in ("TLGAN_STORE", "TLGAN_CACHE", "TLGAN_TARGET", "TLGAN_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    user_file().parent.mkdir(parents=True)
    return workdir


def test_defaults(home: Path) -> None:
    settings = read_settings()
    assert settings["store"].value == (home / ".tlgan" / "store").as_uri()
    assert settings["store"].origin == "default"
    assert (settings["target"].value, settings["s3_endpoint"].value) == ("local", None)


def test_option_then_environment_then_project_then_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file().write_text("store: s3://user\ns3_endpoint: http://user\ndefaults: {target: lab}\n")
    assert read_settings()["store"].value == "s3://user"
    Path("tlgan.yaml").write_text("# mine\nstore: s3://project\n")
    settings = read_settings()
    assert (settings["store"].value, settings["store"].origin) == ("s3://project", f"{home / 'tlgan.yaml'}:2")
    assert (settings["target"].value, settings["target"].origin) == ("lab", f"{user_file()}:3")
    assert settings["s3_endpoint"].value == "http://user"
    monkeypatch.setenv("TLGAN_STORE", "s3://variable")
    assert read_settings()["store"].origin == "TLGAN_STORE"
    assert read_settings(store="s3://option")["store"].origin == "--store"


def test_the_project_file_is_found_from_folders_below_and_its_paths_are_its_own(home: Path) -> None:
    Path("tlgan.yaml").write_text("store: results/store\ncache: ~/c\n")
    below = home / "a" / "b"
    below.mkdir(parents=True)
    assert project_file(below) == home / "tlgan.yaml"
    settings = read_settings(start=below)
    assert settings["store"].value == str(home / "results" / "store")
    assert settings["cache"].value == str(Path("~/c").expanduser())


def test_what_files_say_reaches_the_libraries(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    Path("tlgan.yaml").write_text("store: s3://b\ncache: /c\ncache_bytes: 5GB\ns3_endpoint: http://h:1\n")
    assert export_settings() == "s3://b"
    assert os.environ["TLGAN_CACHE_BYTES"] == "5GB"
    assert (os.environ["TLGAN_CACHE"], os.environ["TLGAN_S3_ENDPOINT"]) == ("/c", "http://h:1")
    assert "TLGAN_STORE" not in os.environ


def test_targets_of_both_files(home: Path) -> None:
    user_file().write_text("targets: {lab: {kind: ray, address: a}, home: {kind: local}}")
    Path("tlgan.yaml").write_text("targets: {lab: {kind: ray, address: b}}")
    assert read_targets() == {"lab": {"kind": "ray", "address": "b"}, "home": {"kind": "local"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stroe: x", 'tlgan.yaml:1:1: stroe: unknown key "stroe" (did you mean "store"?)'),
        ("store: 3", 'tlgan.yaml:1:8: store: expected text, received 3 (put it in quotes: "3")'),
        ("store: [", "tlgan.yaml:2:1: did not find expected node content"),
        ("targets: {lab: {token: abc}}", "tlgan.yaml:1:17: targets.lab.token: a settings file holds no secrets"
         " (give it in the environment)"),
        ("- a", "tlgan.yaml:1:1: expected a mapping, received [\"a\"]"),
    ],
)  # fmt: skip
def test_mistakes(home: Path, text: str, message: str) -> None:
    Path("tlgan.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        read_settings()
    assert str(caught.value).removeprefix(f"{home}/").startswith(message)


def test_an_empty_file_says_nothing(home: Path) -> None:
    Path("tlgan.yaml").write_text("# nothing yet\n")
    assert read_settings()["store"].origin == "default"
