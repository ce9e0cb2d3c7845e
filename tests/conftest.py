"""Shared by all tests: nothing on the person's machine is read or written."""

from __future__ import annotations

import gc
import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported anywhere, and for the processes that tests start

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # nor do threads that wait spin: other tests want the processor

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background of a script: its children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 leaves its workers what the tests beside them don't want

pytest_plugins = ["ray_fixture"]


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    os.environ["TLGAN_CACHE"] = str(home / "cache")
    drawn = tmp_path_factory.getbasetemp() / "datasets"
    if "PYTEST_XDIST_WORKER" in os.environ:  # its folder is one of several in the session's
        drawn = drawn.parents[1] / "datasets"
    drawn.mkdir(exist_ok=True)
    (home / "cache").mkdir()
    (home / "cache" / "datasets").symlink_to(drawn)  # decoded images: what one process has made, none makes again
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
    items.sort(
        key=lambda item: (not _shares_ray(item.path), item.get_closest_marker("ray") is None)
    )  # the long ones first
    if os.environ.get("TLGAN_LONG_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("minutes"):
            item.add_marker(
                pytest.mark.skip(reason="a longer or a further run of its kind: TLGAN_LONG_TESTS=1 runs it")
            )


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again, which is a tenth of some tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """File by file, as `--dist loadfile`; what shares a Ray is one scope, so that one process starts it. It comes first."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "on Ray" if _shares_ray(config.rootpath / file) else file

    return Scheduling(config, log)


@cache
def _shares_ray(file: Path) -> bool:
    return "shared_ray" in file.read_text(encoding="utf-8")
