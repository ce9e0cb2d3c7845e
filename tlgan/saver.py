"""Checkpoints beside training: the loop hands over a copy of its state and goes on; one thread writes it to disk,
another publishes what is written.

Writing keeps up: a checkpoint that is due while the last is still being written waits for it. Publishing need not: while
one is on its way (the store may be away for an hour), those that come are skipped for the newest.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlgan import checkpoint
from tlgan.checkpoint import State
from tlgan.errors import RunFailed, TlganError

Publish = Callable[[Path, int], None]


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk. `stalled`: seconds the loop stood still for it; `seconds`: the thread wrote it in."""

    nimg: int
    stalled: float
    seconds: float


class Saver:
    """Writes the checkpoints of one run below `root`, the newest `keep` of them, and has each published.

    What goes wrong in the threads is raised by the next call from the loop: `RunFailed` for a disk that can't be
    written, and whatever `publish` raises. Use as a context manager; leaving it waits for both threads.
    """

    def __init__(self, root: Path, keep: int, publish: Publish) -> None:
        self.root, self.keep, self._publish = root, keep, publish
        self._done: list[Saved] = []
        self._error: BaseException | None = None
        self._sending: Path | None = None
        self._lock = threading.Lock()  # between choosing what is sent and what is deleted
        self._writer = _Worker("tlgan-save", self._fails)
        self._sender = _Worker("tlgan-publish", self._fails)

    def save(self, nimg: int, state: State, meta: dict[str, Any]) -> None:
        """Takes a copy of `state` in this process's memory; returns when the one before is on disk."""
        begun = time.monotonic()
        self._writer.wait()
        self._raise()
        copy = {owner: {k: t.detach().to("cpu", copy=True) for k, t in part.items()} for owner, part in state.items()}
        stalled = time.monotonic() - begun
        self._writer.put(lambda: self._write(nimg, copy, meta, stalled))

    def written(self) -> list[Saved]:
        """Checkpoints that came to be on disk since this was asked last, oldest first."""
        self._raise()
        done, self._done = self._done, []
        return done

    def flush(self) -> None:
        """Returns when all is written, and the newest published or given up."""
        self._writer.wait()
        self._sender.wait()
        self._raise()

    def _write(self, nimg: int, state: State, meta: dict[str, Any], stalled: float) -> None:
        begun = time.monotonic()
        try:
            path = checkpoint.save(self.root, nimg, state, meta)
        except OSError as error:
            raise unwritable(self.root, error) from error
        with self._lock:
            checkpoint.trim(self.root, self.keep, spare=self._sending)
        self._done = [*self._done, Saved(nimg, stalled, time.monotonic() - begun)]
        self._sender.put(lambda: self._send(path, nimg))

    def _send(self, path: Path, nimg: int) -> None:
        with self._lock:
            if not path.is_dir():  # newer ones have taken its place already
                return
            self._sending = path
        try:
            self._publish(path, nimg)
        finally:
            self._sending = None

    def _fails(self, error: BaseException) -> None:
        self._error = self._error or error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.wait()
        self._writer.end()
        if kind is KeyboardInterrupt:  # a person who will not wait for the store
            return
        self._sender.wait()
        self._sender.end()
        if kind is None:
            self._raise()


def unwritable(root: Path, error: OSError) -> TlganError:
    """What a person is told when a checkpoint can't be written below `root`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room, or set TLGAN_CACHE to a larger disk; the same command goes on from the last checkpoint"
        return RunFailed(f"no room left on the disk of {root} for a checkpoint", hint=hint)
    return RunFailed(f"a checkpoint can't be written to {root}: {error.strerror or error}")


class _Worker:
    """A thread that does one thing at a time. What is put while another waits takes its place."""

    def __init__(self, name: str, fails: Callable[[BaseException], None]) -> None:
        self._fails = fails
        self._next: Callable[[], None] | None = None
        self._busy = self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)

    def put(self, work: Callable[[], None]) -> None:
        with self._changed:
            if not self._thread.is_alive():
                self._thread.start()
            self._next = work
            self._changed.notify_all()

    def wait(self) -> None:
        """Returns when nothing is left to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._next is None and not self._busy)

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._over)
                if self._next is None:
                    return
                work, self._next, self._busy = self._next, None, True
            try:
                work()
            except BaseException as error:
                self._fails(error)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
