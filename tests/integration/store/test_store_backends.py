"""The seam, the same over a directory, moto and rclone."""

from __future__ import annotations

import hashlib
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.store import Store
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound, SpecError


def test_put_get_head_delete(store: Store) -> None:
    store.put("runs/one/status.json", b"{}")
    store.put("runs/one/status.json", b"{1}")
    store.put("runs/one/empty", b"")
    assert store.get("runs/one/status.json") == b"{1}"
    assert store.get("runs/one/empty") == b""
    info = store.head("runs/one/status.json")
    assert info is not None
    assert (info.key, info.size) == ("runs/one/status.json", 3)
    assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=5)
    store.delete("runs/one/status.json")
    store.delete("runs/one/status.json")
    assert store.head("runs/one/status.json") is None
    with pytest.raises(NotFound, match=r"runs/one/status\.json does not exist in"):
        store.get("runs/one/status.json")


def test_ranges(store: Store) -> None:
    store.put("a/data", bytes(range(100)))
    assert store.get_range("a/data", 10, 20) == bytes(range(10, 20))
    assert store.get_range("a/data", 90, 200) == bytes(range(90, 100))
    assert store.get_range("a/data", 5, 5) == b""
    with pytest.raises(NotFound):
        store.get_range("a/none", 0, 1)


def test_list_is_in_order_and_by_prefix(store: Store) -> None:
    keys = ["a/b.txt", "a/b/c", "a/bc", "ab", "z/y/x"]
    for key in reversed(keys):
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == keys
    assert [info.key for info in store.list("a/")] == ["a/b.txt", "a/b/c", "a/bc"]
    assert [info.key for info in store.list("a/b")] == ["a/b.txt", "a/b/c", "a/bc"]
    assert [info.size for info in store.list("a/bc")] == [4]
    assert list(store.list("none/")) == []


def test_folders_are_names_without_a_listing_of_what_is_in_them(store: Store) -> None:
    for key in (
        "runs/b/run.json",
        "runs/b/events/1.jsonl",
        "runs/a.b/run.json",
        "runs/a/x/y",
        "runs/file",
        "runsx/c/d",
    ):
        store.put(key, b"x")
    assert list(store.folders("runs/")) == ["a.b", "a", "b"], "in the order of keys"
    assert list(store.folders("runs/a/")) == ["x"]
    assert list(store.folders("nothing/")) == []
    store.delete("runs/a/x/y")
    assert list(store.folders("runs/")) == ["a.b", "b"], "an empty folder is none"


def test_download_and_upload_check_the_digest(store: Store, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3 << 20)
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    store.put("a/file", source, sha256=digest)
    store.download("a/file", dest, sha256=digest, size=len(data))
    assert dest.read_bytes() == data
    with pytest.raises(IntegrityError, match="does not match its digest"):
        store.put("a/other", source, sha256="0" * 64)
    assert store.head("a/other") is None
    for wrong in ({"sha256": "0" * 64}, {"size": 1000}):
        with pytest.raises(IntegrityError):
            store.download("a/file", tmp_path / "wrong", **wrong)  # type: ignore[arg-type]
        assert not (tmp_path / "wrong").exists()
    with pytest.raises(NotFound):
        store.download("a/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_files_of_many_parts(store: Store, tmp_path: Path) -> None:
    data = random.Random(1).randbytes((17 << 20) + 5)
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.write_bytes(data)
    with pytest.raises(IntegrityError):
        store.put("a/big", source, sha256="0" * 64)
    assert store.head("a/big") is None
    store.put("a/big", source, sha256=hashlib.sha256(data).hexdigest())
    store.download("a/big", dest)
    assert dest.read_bytes() == data


def test_reads_have_a_limit(store: Store) -> None:
    store.put("a/long", b"x" * 100)
    assert len(store.get("a/long", max_bytes=100)) == 100
    with pytest.raises(IntegrityError, match="100 bytes; at most 99"):
        store.get("a/long", max_bytes=99)


def test_put_if_absent_has_one_winner(store: Store) -> None:
    assert store.put_if_absent("a/key", b"first")
    assert not store.put_if_absent("a/key", b"second")
    assert store.get("a/key") == b"first"
    if store.capabilities.create_only:
        for number in range(3):
            with ThreadPoolExecutor(20) as pool:
                writers = [pool.submit(store.put_if_absent, f"race/{number}", b"by %d" % i) for i in range(20)]
            won = [i for i, writer in enumerate(writers) if writer.result()]
            assert len(won) == 1
            assert store.get(f"race/{number}") == b"by %d" % won[0]


def test_compare_and_swap(store: Store, backend: str) -> None:
    assert store.capabilities.compare_and_swap == (backend != "rclone")
    if not store.capabilities.compare_and_swap:
        assert "does not honour If-None-Match and If-Match" in store.capabilities.note
        with pytest.raises(BackendError, match="can't compare and swap"):
            store.compare_and_swap("a/key", b"1", None)
        return
    first = store.compare_and_swap("a/key", b"1", None)
    assert store.read("a/key") == (b"1", first)
    second = store.compare_and_swap("a/key", b"2", first)
    for expected in (first, None):
        with pytest.raises(Conflict):
            store.compare_and_swap("a/key", b"3", expected)
    with pytest.raises(Conflict):
        store.compare_and_swap("a/none", b"3", second)
    assert store.read("a/key") == (b"2", second)


def test_a_counter_by_compare_and_swap_loses_nothing(store: Store) -> None:
    if not store.capabilities.compare_and_swap:
        pytest.skip("this server can't")
    store.put("a/count", b"0")

    def add() -> None:
        while True:
            value, token = store.read("a/count")
            try:
                store.compare_and_swap("a/count", b"%d" % (int(value) + 1), token)
                return
            except Conflict:
                continue

    with ThreadPoolExecutor(5) as pool:
        for future in [pool.submit(add) for _ in range(20)]:
            future.result()
    assert store.get("a/count") == b"20"


def test_the_probe_leaves_nothing(store: Store) -> None:
    assert store.capabilities
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/../../x", "a\\b", "", "a/CON"])
def test_keys_stay_inside(store: Store, key: str) -> None:
    for action in (store.get, store.head, store.delete):
        with pytest.raises(SpecError):
            action(key)
    with pytest.raises(SpecError):
        store.put(key, b"")


def test_stores_travel_to_other_processes(store: Store) -> None:
    store.put("a/b", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.url == store.url
    assert copy.get("a/b") == b"1"
