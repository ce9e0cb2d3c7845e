"""Run records: who is meant, whether its process lives, damaged ones; and the signal that stops a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.checkpoints import Checkpoints
from cluster.runs import Runs, new_record
from cluster.stopping import stop_key, stop_signal
from cluster.store import open_store
from cluster.store.base import Store
from tlgan.errors import BackendError, IntegrityError, NotFound, SpecError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def runs(store: Store) -> Runs:
    found = Runs(store)
    for run in ("glyphs-aaaa1111", "glyphs-bbbb2222", "digits-cccc3333"):
        found.create(new_record(run, run.partition("-")[0], "pretrain", state="running"))
    return found


def test_a_beginning_names_one_run_or_none(runs: Runs) -> None:
    assert runs.get("glyphs-a").id == "glyphs-aaaa1111"
    assert runs.get("glyphs").id == "glyphs-bbbb2222", "a name stands for its newest run"
    with pytest.raises(SpecError, match=r"2 runs begin with glyphs-: .*aaaa1111.*"):
        runs.get("glyphs-")
    with pytest.raises(NotFound):
        runs.get("")


def test_a_damaged_record_is_named_and_does_not_hide_the_others(
    runs: Runs, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("runs/digits-cccc3333/run.json", b'{"id": 1')
    assert {record.name for record in runs.list()} == {"glyphs"}
    assert "runs/digits-cccc3333/run.json is no record of a run" in caplog.text
    with pytest.raises(IntegrityError, match="no record of a run"):
        runs.get("digits-cccc3333")


def test_a_process_that_has_the_number_of_a_dead_one_is_another(runs: Runs) -> None:
    assert runs.get("digits").process_is_alive
    record = runs.update("digits-cccc3333", pid=1, process="00000000-1")
    assert record.process_is_alive is (not Path("/proc/1/stat").exists())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert runs.update("digits-cccc3333", pid=ended.pid, process="").process_is_alive is False
    assert runs.update("digits-cccc3333", host="elsewhere").process_is_alive is None


def test_a_store_that_is_away_does_not_stop_a_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not stop_signal(store, "tiny-1/trials/000", 2)()
    store.put(stop_key("tiny-1", 2), b"{}")
    assert stop_signal(store, "tiny-1/trials/000", 2)()
    assert not stop_signal(store, "tiny-1/trials/000", 3)(), "the attempt after it was not meant"

    for error in (BackendError("no route"), RuntimeError("a bug in somebody's client")):

        def away(key: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(store, "head", away)
        assert not stop_signal(store, "tiny-1", 2)()


def test_clearing_checkpoints_takes_half_uploaded_ones_too(store: Store) -> None:
    store.put("runs/tiny-1/checkpoints/000000000100/state.safetensors", b"half")
    store.put("runs/tiny-10/checkpoints/000000000100/state.safetensors", b"another run's")
    Checkpoints(store, "tiny-1").clear()
    assert [info.key for info in store.list("runs/")] == ["runs/tiny-10/checkpoints/000000000100/state.safetensors"]
