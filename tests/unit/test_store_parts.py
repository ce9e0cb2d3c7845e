"""Parts of the store that need no server: the gate, sums, copies of files, one listing for many blobs."""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster.store import ObjectInfo, filecopy, s3_gate, s3_sums, s3_upload, transfer
from cluster.store.filecopy import copy_hashed
from cluster.store.s3_gate import Gate
from cluster.store.s3_upload import part_size

FINE = {"ResponseMetadata": {"HTTPStatusCode": 200}}


def answer(status: int) -> ClientError:
    return ClientError({"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


def limits(gate: Gate, monkeypatch: pytest.MonkeyPatch, rate: Callable[[int], float], answers: int) -> list[int]:
    """The gate's limit after each answer of a server that gives `rate(requests at once)` answers a second, to a crowd."""
    clock = [0.0]
    monkeypatch.setattr(s3_gate.time, "monotonic", lambda: clock[0])
    gate._waiting = 1
    found = []
    for _ in range(answers):
        clock[0] += 1 / rate(gate.limit)
        gate.faster()
        found.append(gate.limit)
    return found


def test_the_gate_opens_while_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    far_away = limits(Gate(12), monkeypatch, lambda at_once: at_once * 20.0, 200)
    assert far_away[0] == s3_gate.FIRST
    assert far_away[-1] == 12
    assert far_away.index(12) < 100
    one_core = limits(Gate(12), monkeypatch, lambda at_once: 20.0, 1000)
    assert statistics.mean(one_core) < s3_gate.FIRST + 0.5
    assert max(one_core) == s3_gate.FIRST + 1
    noise = random.Random(0)
    six_cores = limits(Gate(12), monkeypatch, lambda at_once: min(at_once, 6) * noise.uniform(19, 21), 1000)
    assert 5 < statistics.mean(six_cores[200:]) < 8
    worse_with_more = limits(Gate(12), monkeypatch, lambda at_once: 100.0 / at_once, 1000)
    assert statistics.mean(worse_with_more) < s3_gate.FIRST + 0.5


def test_the_gate_says_nothing_of_answers_that_nobody_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(12)
    for _ in range(200):
        gate.faster()
    assert gate.limit == s3_gate.FIRST


def test_the_gate_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(12)
    limits(gate, monkeypatch, lambda at_once: at_once * 20.0, 200)
    for _ in range(5):  # five requests that were under way together
        gate.slower(started=0.5)
    assert gate.limit == 6
    gate.slower(started=1e12)
    assert gate.limit == 3
    assert max(limits(gate, monkeypatch, lambda at_once: at_once * 20.0, 30)) == 3  # it stays there for a while
    assert limits(gate, monkeypatch, lambda at_once: at_once * 20.0, 400)[-1] == 12


def test_the_gate_waits_while_a_server_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(s3_gate.time, "sleep", waits.append)
    answers: list[Any] = [answer(503), answer(429), FINE]

    def send() -> dict[str, Any]:
        found = answers.pop(0)
        if isinstance(found, ClientError):
            raise found
        return dict(found)

    gate = Gate(8)
    assert gate.patiently(send) == FINE
    assert len(waits) == 2
    assert waits[1] > waits[0] * 0.9
    assert gate.limit == 1
    answers += [answer(403)]
    with pytest.raises(ClientError):
        gate.patiently(send)
    answers += [answer(503)] * 10
    with pytest.raises(ClientError):
        gate.patiently(send)
    assert len(waits) == 2 + s3_gate.ROUNDS - 1


def test_no_more_than_the_limit_are_inside() -> None:
    gate = Gate(4)
    gate.enter(100)  # too heavy for the gate: alone
    inside = threading.Event()
    waiting = threading.Thread(target=lambda: (gate.enter(), inside.set()))
    waiting.start()
    assert not inside.wait(0.05)
    gate.leave(100)
    assert inside.wait(5)
    waiting.join()


def test_weight_counts_against_the_bound_and_requests_against_the_limit() -> None:
    gate = Gate(4, first=3)
    for _ in range(2):
        gate.enter(2)  # two requests where three may be: large ones are as welcome as small ones
    inside = threading.Event()
    waiting = threading.Thread(target=lambda: (gate.enter(2), inside.set()))
    waiting.start()
    assert not inside.wait(0.05)  # but no more of them than there is memory for
    gate.leave(2)
    assert inside.wait(5)
    waiting.join()


def test_large_files_go_up_in_larger_parts() -> None:
    assert [part_size(size) >> 20 for size in (1, s3_upload.LARGE - 1, s3_upload.LARGE, 1 << 40)] == [8, 8, 16, 116]


@pytest.mark.parametrize("kernel", [True, False])
def test_copies_are_hashed_as_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    data = random.Random(0).randbytes((9 << 20) + 1)
    (tmp_path / "a").write_bytes(data)
    if not kernel:

        def refuse(*_: int) -> int:
            raise OSError("not here")

        monkeypatch.setattr(filecopy.os, "copy_file_range", refuse)
    with (tmp_path / "a").open("rb", buffering=0) as source, (tmp_path / "b").open("x+b", buffering=0) as target:
        assert copy_hashed(source, target) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "b").read_bytes() == data
    with (tmp_path / "a").open("rb", buffering=0) as source, (tmp_path / "c").open("x+b", buffering=0) as target:
        copy_hashed(source, target, limit=10)
    assert os.path.getsize(tmp_path / "c") < len(data)


class Listed:
    def __init__(self, count: int) -> None:
        self.keys, self.read = [f"blobs/{number:06}" for number in range(0, count * 2, 2)], 0

    def list(self, prefix: str) -> Any:
        for key in self.keys:
            self.read += 1
            yield ObjectInfo(key, 7, datetime.now(UTC))


def test_one_listing_for_many_blobs() -> None:
    wanted = [f"blobs/{number:06}" for number in range(40)]
    store = Listed(100)
    assert transfer.stored_sizes(store, wanted[:5]) == {}  # type: ignore[arg-type]
    assert transfer.stored_sizes(store, wanted) == {key: 7 if int(key[-1]) % 2 == 0 else None for key in wanted}  # type: ignore[arg-type]
    large = Listed(100_000)
    far = [*wanted[:39], "blobs/199999"]
    found = transfer.stored_sizes(large, far)  # type: ignore[arg-type]
    assert set(found) == set(wanted[:39])
    assert large.read < 1000


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 7999, 8000])
def test_a_file_and_its_parts_are_summed_in_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Blocks that parts are no multiple of, too."""
    monkeypatch.setattr(s3_sums, "BLOCK", 300)
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    with ThreadPoolExecutor(2) as pool:
        digest, crcs = s3_sums.Summing(pool).hash_parts(tmp_path / "file", 1000)
    assert digest == hashlib.sha256(data).hexdigest()
    assert crcs == [zlib.crc32(data[start : start + 1000]) for start in range(0, size, 1000)]
