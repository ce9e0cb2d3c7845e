"""Checkpoints beside training: what the loop waits for, what it does not, and what it is told."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import recipe

from tlgan import checkpoint
from tlgan.errors import Conflict, RunFailed
from tlgan.saver import Publish, Saver

META = {"recipe": recipe().digest}


def state(value: float = 1.0, count: int = 3) -> checkpoint.State:
    return {"G": {"w": torch.full((count,), value)}}


def save_all(root: Path, *states: checkpoint.State, publish: Publish = lambda path, nimg: None) -> None:
    """One after the other, each published before the next."""
    with Saver(root, 2, publish) as saver:
        for nimg, one in enumerate(states, 1):
            saver.save(nimg, one, META)
            saver._writer.wait()
            saver._sender.wait()


def test_a_slow_store_delays_nothing_and_gets_the_newest(tmp_path: Path) -> None:
    """The first is on its way for as long as it likes; ten more are written meanwhile, and only the last of them follows."""
    begun, may_end, sent = threading.Event(), threading.Event(), list[int]()

    def publish(path: Path, nimg: int) -> None:
        begun.set()
        assert may_end.wait(60)
        assert (path / "state.safetensors").is_file(), "what is being published is not deleted"
        sent.append(nimg)

    with Saver(tmp_path, 2, publish) as saver:
        saver.save(1, state(), META)
        assert begun.wait(60)
        for nimg in range(2, 12):
            saver.save(nimg, state(nimg), META)
        saver._writer.wait()
        assert [saved.nimg for saved in saver.written()] == list(range(1, 12))
        assert saver.written() == []
        assert sorted(map(checkpoint.nimg_of, tmp_path.glob("ckpt-*"))) == [1, 10, 11]
        may_end.set()
        saver.flush()
        assert sent == [1, 11]


def test_what_is_saved_is_what_was_handed_over(tmp_path: Path) -> None:
    """The loop changes its tensors in place right after."""
    own = state(1.0, count=1_000_000)
    with Saver(tmp_path, 2, lambda path, nimg: None) as saver:
        saver.save(1, own, META)
        own["G"]["w"].fill_(2.0)
        saver.flush()
    kept, _ = checkpoint.load(tmp_path / "ckpt-000000000001", recipe())
    assert kept["G"]["w"].unique().tolist() == [1.0]


def test_an_attempt_that_may_not_publish_is_told_at_its_next_checkpoint(tmp_path: Path) -> None:
    def publish(path: Path, nimg: int) -> None:
        raise Conflict("taken over")

    with pytest.raises(Conflict, match="taken over"):
        save_all(tmp_path, state(), state(), publish=publish)
    assert checkpoint.newest(tmp_path) == tmp_path / "ckpt-000000000001", "it went no further"


def test_a_disk_without_room_ends_the_run_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunFailed, match="no room left on the disk of") as error:
        save_all(tmp_path, state())
    assert "make room" in str(error.value.hint)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_really_is_full_keeps_the_checkpoint_before(small_disk: Path) -> None:
    root = small_disk / "checkpoints"
    with pytest.raises(RunFailed, match="no room left on the disk of"):
        save_all(root, state(count=100_000), state(count=400_000))
    checkpoint.drop_damaged(root)
    assert checkpoint.newest(root) == root / "ckpt-000000000001"
    checkpoint.check(root / "ckpt-000000000001")
