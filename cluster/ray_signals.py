"""Signals that a command with a Ray of its own gets: they are for the command, which ends in order, and Ray with it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HOOK = "set_kill_on_parent_death_linux"


@contextmanager
def apart() -> Iterator[None]:
    """Ray's processes that are started in the block have a session of their own.

    Else a signal to this process's group, as by `timeout`, launchers and closed terminals, ends them too, and no checkpoint
    is written. Ray (2.60) has no option for that, but calls one function in each new process, here with more in it.
    """
    from ray._private import utils

    original = getattr(utils, HOOK, None)
    if original is None:
        yield
        return

    def hook() -> None:
        os.setsid()
        original()

    setattr(utils, HOOK, hook)
    try:
        yield
    finally:
        setattr(utils, HOOK, original)


def take_back() -> bool:
    """Ray's start puts a handler before Python's, which prints stacks at a SIGTERM. Whether it was removed: by the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if (handler := signal.getsignal(signal.SIGTERM)) is not None:
        signal.signal(signal.SIGTERM, handler)
    return True
