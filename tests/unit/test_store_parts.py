"""Parts of the store that need no server: the gate, copies of files, one listing for many blobs."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster.store import ObjectInfo, filecopy, s3_gate, transfer
from cluster.store.filecopy import copy_hashed
from cluster.store.s3_gate import Gate

FINE = {"ResponseMetadata": {"HTTPStatusCode": 200}}


def answer(status: int) -> ClientError:
    return ClientError({"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


def test_the_gate_opens_slowly_and_halves() -> None:
    gate = Gate(12)
    assert gate.limit == 6
    for _ in range(200):
        gate.faster()
    assert gate.limit == 12
    for _ in range(5):  # five requests that were under way together
        gate.slower(started=1e12)
    assert gate.limit == 6 or gate._slowed < 1e12
    gate = Gate(8)
    gate.slower(started=1e12)
    before = gate._slowed
    assert gate.limit == 2
    for _ in range(5):
        gate.slower(started=before - 1)
    assert gate.limit == 2


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
    assert gate.limit < 4
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
