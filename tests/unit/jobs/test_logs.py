"""Logs in the store: bounded segments, no secrets, nothing lost when the store is away, read by rank and trial."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from cluster import logs
from cluster.logs import LogWriter, captured, read_logs, sources
from cluster.store import open_store
from cluster.store.base import Store
from jobs.verbs.follow import source_of
from tlgan.errors import BackendError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def write(store: Store, run: str, source: str, *lines: str) -> None:
    with LogWriter(store, run, source) as writer:
        for line in lines:
            writer.line(line)


def texts(store: Store, source: str | None = None) -> list[str]:
    return [line.text for line in read_logs(store, "r", source)]


def test_lines_of_all_processes_by_time_and_of_one(store: Store) -> None:
    write(store, "r", "driver", "begin")
    write(store, "r", "rank-0", "zero")
    write(store, "r", "rank-1", "one")
    write(store, "r/trials/003", "rank-0", "third")
    assert texts(store) == ["begin", "zero", "one", "third"]
    assert texts(store, "rank-1") == ["one"]
    assert texts(store, source_of(None, "3")) == texts(store, source_of(0, "3")) == ["third"]
    assert texts(store, source_of(1, "3")) == []
    assert sources(store, "r") == ["driver", "rank-0", "rank-1", "trial-003/rank-0"]
    seen: set[str] = set()
    assert len(list(read_logs(store, "r", None, seen))) == 4
    write(store, "r", "rank-1", "more")
    assert [line.text for line in read_logs(store, "r", None, seen)] == ["more"]


def test_segments_are_bounded_and_so_is_the_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SEGMENT_BYTES", 2000)
    monkeypatch.setattr(logs, "MAX_BYTES", 20_000)
    write(store, "r", "driver", *(f"{number} {'x' * 100}" for number in range(400)), "y" * 100_000)
    infos = list(store.list("runs/r/logs/"))
    assert 5 < len(infos) < 40
    assert max(info.size for info in infos) <= 2000
    assert sum(info.size for info in infos) <= 21_000
    assert texts(store)[-1] == logs.ALL_USED


def test_one_line_is_cut(store: Store) -> None:
    write(store, "r", "driver", "y" * 100_000)
    assert texts(store) == ["y" * logs.MAX_LINE]


def test_secrets_are_cut_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-itself")
    write(store, "r", "driver", "key the-secret-itself", "https://user:word@host/x?X-Amz-Signature=abc")
    assert texts(store) == ["key ***", "https://host/x"]


def test_lines_wait_for_a_store_that_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(store, "r", "driver")

    def away(*_: object, **__: object) -> None:
        raise BackendError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", away)
        writer.line("first")
        writer.flush()
    writer.line("second")
    writer.flush()
    assert texts(store) == ["first", "second"]


def test_what_a_worker_prints_and_what_ends_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)

    def work() -> None:
        with captured(store, "r", "rank-0", "rank 0 of 1"):
            print("hello")
            print("half", end="")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    assert sys.stdout is screen
    assert screen.getvalue() == "hello\nhalf"
    found = texts(store)
    assert found[:2] == ["rank 0 of 1", "hello"]
    assert found[-1] == "ZeroDivisionError: division by zero"
    assert any("in work" in line for line in found)
    assert "half" in found


def test_segments_are_plain_json_lines(store: Store) -> None:
    write(store, "r", "driver", "grüße")
    (info,) = store.list("runs/r/logs/driver/")
    (line,) = store.get(info.key).decode().splitlines()
    assert json.loads(line)["text"] == "grüße"
