"""A store that breaks at one call, and a directory store that is quick enough to be broken thousands of times."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.store import Store
from tlgan.errors import BackendError

CALLS = {
    "put",
    "put_if_absent",
    "compare_and_swap",
    "get",
    "read",
    "get_range",
    "download",
    "head",
    "list",
    "folders",
    "delete",
}


class Crash(BaseException):
    """The process is dead: whatever it still calls comes to nothing."""


class Breaking:
    """Passes calls on; the one with number `at` (from 0) breaks, before it is carried out or after it.

    `how`: "fails" (one call raises `BackendError`, and life goes on), "dies" (this and every later call raise `Crash`)
    or "killed" (SIGKILL to the own process).
    """

    def __init__(self, store: Store, at: int | None, *, after: bool = False, how: str = "fails") -> None:
        self.store, self.at, self.after, self.how = store, at, after, how
        self.count = 0
        self.broke: str | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.store, name)
        return self._wrap(name, value) if name in CALLS else value

    def _wrap(self, name: str, value: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                number, self.count = self.count, self.count + 1
            if self.broke and self.how == "dies":
                raise Crash(name)
            if number == self.at and not self.after:
                self._break(number, name)
            try:
                result = value(*args, **kwargs)
                return iter(list(result)) if name in ("list", "folders") else result
            finally:
                if number == self.at:
                    self._break(number, name)

        return call

    def _break(self, number: int, name: str) -> None:
        self.broke = name
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "dies":
            raise Crash(name)
        raise BackendError(f"call {number}, {name}, failed")


@contextlib.contextmanager
def quick_folder() -> Iterator[Path]:
    """An empty folder, in memory where the system has that."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="tlgan-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@contextlib.contextmanager
def without_fsync() -> Iterator[None]:
    """No test can cut the power, so waiting for the disk shows nothing and costs most of the time."""
    saved, os.fsync = os.fsync, lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = saved
