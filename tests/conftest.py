"""Shared by all tests: nothing on the person's machine is read or written."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported anywhere, and for the processes that tests start

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background of a script: its children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["ray_fixture"]


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    os.environ["TLGAN_CACHE"] = str(home / "cache")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAY_ADDRESS", "TLGAN_")) and name != "TLGAN_CACHE":
            del os.environ[name]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("TLGAN_LONG_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("minutes"):
            item.add_marker(
                pytest.mark.skip(reason="a longer or a further run of its kind: TLGAN_LONG_TESTS=1 runs it")
            )
