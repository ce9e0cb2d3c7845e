"""Waiting for work in threads without losing Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start(work: Callable[[], T], name: str) -> Future[T]:
    """Begins `work` in a thread that does not keep the process alive, as those of an executor do."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name=name).start()
    return future


def away_from_main(work: Callable[[], T], name: str) -> T:
    """Runs `work` in another thread and waits for it.

    In the main thread Ray Train and Ray Tune put their own handlers in the place of the one that is set for Ctrl-C.
    """
    return start(work, name).result()
