"""What runs that are over left behind: found by age, never of a run that is running, and removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.checkpoints import old_checkpoints, remove_old
from cluster.drafts import pin_name, put_draft
from cluster.runs import Runs, new_record
from cluster.store import ArtifactStore, open_store
from cluster.store.base import Store

DAY = 24 * 3600.0
TWO_WEEKS = timedelta(days=14)
RUN = "tiny-12345678"
CHECKPOINT = f"runs/{RUN}/checkpoints/000000000100-1"
Age = Callable[[float], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def age(tmp_path: Path) -> Age:
    """`age(days)`: everything in the store so far is so old."""

    def make(days: float) -> None:
        then = time.time() - days * DAY
        for file in (tmp_path / "store").rglob("*"):
            os.utime(file, (then, then))

    return make


@pytest.fixture
def run(store: Store) -> Runs:
    """A run that was stopped, with a checkpoint of 20 bytes, a draft, and an event."""
    runs = Runs(store)
    runs.create(new_record(RUN, "tiny", "pretrain", state="stopped", attempt=1))
    store.put(f"{CHECKPOINT}/state.safetensors", b"10 bytes..")
    store.put(f"{CHECKPOINT}/complete.json", b"10 bytes..")
    store.put(f"runs/{RUN}/events/1.jsonl", b"{}")
    return runs


def found(store: Store) -> list[str]:
    return [old.run for old in old_checkpoints(store, TWO_WEEKS)]


def test_checkpoints_of_runs_that_ended_long_ago_go(run: Runs, store: Store, age: Age) -> None:
    age(13)
    assert found(store) == []
    age(15)
    (old,) = old_checkpoints(store, TWO_WEEKS)
    assert (old.run, old.state, old.bytes, old.silent.days) == (RUN, "stopped", 20, 15)
    assert old.keys == [f"{CHECKPOINT}/complete.json", f"{CHECKPOINT}/state.safetensors"], "what makes it whole first"
    assert remove_old(store, old) == 20
    assert {info.key for info in store.list(f"runs/{RUN}/")} == {f"runs/{RUN}/run.json", f"runs/{RUN}/events/1.jsonl"}
    assert found(store) == []


def test_a_run_that_runs_keeps_its_own(run: Runs, store: Store, age: Age) -> None:
    run.update(RUN, state="running")
    age(15)
    assert found(store) == [], "its process lives on this machine"
    run.update(RUN, host="elsewhere")
    age(15)
    store.put(f"runs/{RUN}/alive/1.json", b"{}")
    assert found(store) == [], "it gives signs of life"
    age(15)
    store.put(f"runs/{RUN}/events/2.jsonl", b"{}")
    assert found(store) == [], "it writes events"
    age(15)
    assert found(store) == [RUN]
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    run.update(RUN, host=new_record(RUN, "tiny", "pretrain").host, pid=ended.pid, process="")
    age(15)
    assert found(store) == [RUN], "its process is gone"


def test_a_run_that_was_taken_up_meanwhile_keeps_them(run: Runs, store: Store, age: Age) -> None:
    age(15)
    (old,) = old_checkpoints(store, TWO_WEEKS)
    run.update(RUN, state="running", attempt=2)
    assert remove_old(store, old) == 0
    assert store.head(f"{CHECKPOINT}/complete.json") is not None


def test_drafts_of_a_sweep_go_with_their_pins(store: Store, age: Age, tmp_path: Path) -> None:
    Runs(store).create(new_record(RUN, "tiny", "sweep", state="failed", attempt=2))
    (tmp_path / "g.bin").write_bytes(b"networks")
    for trial in ("000", "001"):
        ArtifactStore(store).stage(tmp_path / "g.bin", pin=pin_name(f"{RUN}/trials/{trial}", 2))
        put_draft(store, f"{RUN}/trials/{trial}", 2, {"files": []})
    age(15)
    (old,) = old_checkpoints(store, TWO_WEEKS)
    assert old.keys == [f"runs/{RUN}/trials/{trial}/draft-2.json" for trial in ("000", "001")]
    remove_old(store, old)
    assert not list(store.list("leases/"))
    assert [info.key for info in store.list("runs/")] == [f"runs/{RUN}/run.json"]


def test_what_a_run_without_a_record_left_is_found_too(store: Store, age: Age) -> None:
    store.put(f"{CHECKPOINT}/state.safetensors", b"half")
    age(15)
    (old,) = old_checkpoints(store, TWO_WEEKS)
    assert (old.state, old.bytes) == (None, 4)
    assert remove_old(store, old) == 4
