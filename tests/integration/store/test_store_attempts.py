"""Attempts of a run: one that was taken over and wakes up publishes nothing, moves nothing, removes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.checkpoints import Checkpoints
from cluster.drafts import get_draft, keep_draft, pin_name, put_draft, unpin_all
from cluster.fence import Fence
from cluster.runs import Runs, new_record
from cluster.store import ArtifactStore, Store
from cluster.store.claim import Claim
from cluster.store.gc import Collector
from cluster.store.retention import Policy
from tlgan.errors import Conflict
from tlgan.manifest import Manifest

RUN = "tiny-12345678"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def runs(store: Store) -> Runs:
    found = Runs(store)
    found.create(new_record(RUN, "tiny", "pretrain", state="running", attempt=1))
    return found


def take_over(runs: Runs) -> Fence:
    """What a new attempt does first."""
    record = runs.revise(RUN, lambda found: {"attempt": found.attempt + 1})
    fence = Fence(runs.store, RUN, record.attempt)
    fence.shut_out_older()
    return fence


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_attempt_that_slept_while_another_published_moves_nothing(
    runs: Runs, artifacts: ArtifactStore, make: Callable[..., Path], backend: str, call: int
) -> None:
    if backend == "rclone" and call == 3:
        pytest.skip("this server can't compare and swap")
    first, second = make("first", {"a.bin": b"first"}), make("second", {"a.bin": b"second"})
    command = [sys.executable, str(Path(__file__).parent / "attempt.py"), artifacts.url, RUN, str(first), str(call)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            fence = take_over(runs)
            files = artifacts.stage(second, pin=pin_name(RUN, 2))
            manifest = Manifest.create("model", files, kind="files")
            published = artifacts.commit(manifest, ["latest"], fence, fence.claim)
        finally:
            os.kill(child.pid, signal.SIGCONT)
        said, _ = child.communicate(timeout=60)
    assert child.returncode == 4, said
    assert "attempt" in said
    assert artifacts.resolve("model:latest").digest == published.digest
    alias = artifacts.aliases("model")["latest"]
    assert (alias.run, alias.attempt, alias.prev) == (RUN, 2, None)
    versions = [version.ref for version in artifacts.versions("model")]
    assert versions[-1:] == [published.ref]
    fenced = call == 1 and artifacts.store.capabilities.create_only
    assert len(versions) == (1 if fenced else 2), "before its commit it publishes nothing, after it no alias is its"


def test_an_alias_is_not_moved_back_to_an_older_attempt(artifacts: ArtifactStore, make: Callable[..., Path]) -> None:
    old = artifacts.push("model", make("old", {"a": b"old"}), kind="files", aliases=[])
    new = artifacts.push("model", make("new", {"a": b"new"}), kind="files", aliases=[])
    artifacts.move_alias("model", "latest", new.digest, claim=Claim(run=RUN, attempt=2))
    with pytest.raises(Conflict, match="was moved by attempt 2"):
        artifacts.move_alias("model", "latest", old.digest, claim=Claim(run=RUN, attempt=1))
    assert artifacts.resolve("model:latest").digest == new.digest
    artifacts.move_alias("model", "latest", old.digest, claim=Claim(run="other-12345678", attempt=1))
    assert artifacts.resolve("model:latest").digest == old.digest, "another run may, and so may a person"


def checkpoint(folder: Path, text: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(text)
    (folder / "state.json").write_bytes(b"{}")
    return folder


def test_an_older_attempt_adds_overwrites_and_removes_no_checkpoint(runs: Runs, store: Store, tmp_path: Path) -> None:
    first = Checkpoints(store, RUN, keep=1, attempt=1, guard=Fence(store, RUN, 1))
    first.push(checkpoint(tmp_path / "1", b"one"), 100)
    second = Checkpoints(store, RUN, keep=1, attempt=2, guard=take_over(runs))
    second.push(checkpoint(tmp_path / "2", b"two"), 100)
    assert second.complete() == [(2, 100)], "keep counts over attempts"
    before = {info.key: info.modified for info in store.list(f"runs/{RUN}/checkpoints/")}
    with pytest.raises(Conflict, match=r"taken over by attempt 2 .* this is attempt 1"):
        first.push(checkpoint(tmp_path / "3", b"three"), 200)
    assert {info.key for info in store.list(f"runs/{RUN}/checkpoints/")} == before.keys(), "not even a part of it"
    first.clear()
    assert {info.key: info.modified for info in store.list(f"runs/{RUN}/checkpoints/")} == before
    second.fetch_newer(tmp_path / "local")
    assert (tmp_path / "local" / "ckpt-000000000100" / "state.safetensors").read_bytes() == b"two"


def test_checkpoints_without_an_attempt_in_their_name_are_read(runs: Runs, store: Store, tmp_path: Path) -> None:
    new = Checkpoints(store, RUN, attempt=1)
    new.push(checkpoint(tmp_path / "1", b"old layout"), 300)
    for info in list(store.list(f"runs/{RUN}/checkpoints/")):
        store.put(info.key.replace("-1/", "/"), store.get(info.key))
        store.delete(info.key)
    assert new.complete() == [(0, 300)]
    new.fetch_newer(tmp_path / "local")
    assert (tmp_path / "local" / "ckpt-000000000300" / "state.safetensors").read_bytes() == b"old layout"
    new.clear()
    assert not list(store.list(f"runs/{RUN}/checkpoints/"))


def test_a_damaged_mark_of_completeness_costs_one_checkpoint(store: Store, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store, RUN)
    checkpoints.push(checkpoint(tmp_path / "1", b"good"), 100)
    checkpoints.push(checkpoint(tmp_path / "2", b"bad"), 200)
    store.put(f"runs/{RUN}/checkpoints/000000000200-1/complete.json", b"[]")
    checkpoints.fetch_newer(tmp_path / "local")
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["ckpt-000000000100"]


def test_drafts_of_attempts_lie_side_by_side(store: Store) -> None:
    runs = Runs(store)
    runs.put_json(RUN, "draft.json", {"nimg": 0})
    assert get_draft(store, RUN, 5) == {"nimg": 0}, "as older versions wrote it"
    put_draft(store, RUN, 2, {"nimg": 2})
    put_draft(store, RUN, 1, {"nimg": 1})  # it woke up
    put_draft(store, RUN, 10, {"nimg": 10})
    assert [get_draft(store, RUN, n) for n in (1, 2, 9, 10)] == [{"nimg": 1}, {"nimg": 2}, {"nimg": 2}, {"nimg": 10}]
    assert get_draft(store, "other-12345678", 1) is None


def test_a_draft_is_kept_for_the_next_attempt_while_its_blobs_are_there(
    artifacts: ArtifactStore, make: Callable[..., Path]
) -> None:
    store = artifacts.store
    collector = Collector(store, Policy(grace=timedelta(0)))
    trial = f"{RUN}/trials/000"
    files = artifacts.stage(make("draft", {"g.bin": b"networks"}), pin=pin_name(trial, 1))
    draft = {"files": [entry.model_dump() for entry in files]}
    assert keep_draft(artifacts, trial, 2, draft)
    artifacts.unpin(pin_name(trial, 1))
    assert not collector.run(collector.plan()).blobs, "the second attempt's pin protects them"
    store.put("leases/pin-run-tiny-12345678-9.1.json", store.get(f"leases/pin-run-{RUN}.trials.000.2.json"))
    unpin_all(store, RUN)
    assert [info.key for info in store.list("leases/")] == ["leases/pin-run-tiny-12345678-9.1.json"], "another run's"
    store.delete("leases/pin-run-tiny-12345678-9.1.json")
    assert len(collector.run(collector.plan()).blobs) == 1
    assert not keep_draft(artifacts, trial, 3, draft)
    assert not list(store.list("leases/")), "what is gone is not pinned"
