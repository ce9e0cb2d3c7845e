"""Waiting for a store that is away: what was trained is not given up because nobody can take it right now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tlgan.errors import BackendError, Refused

log = logging.getLogger("tlgan.patience")
PATIENCE = 1800.0
"""Seconds for which a run waits for its store."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
T = TypeVar("T")


def patiently(work: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The result of `work`, tried again for `patience` seconds while the store can't be reached.

    `what` says in the log what waits. A store that answers, but refuses, is not asked again: that raises `Refused` at once.
    `work` must be of the kind that may be done twice.
    """
    end, pause = time.monotonic() + patience, FIRST_PAUSE
    while True:
        try:
            return work()
        except Refused:
            raise
        except BackendError as error:
            left = end - time.monotonic()
            if left <= 0:
                raise
            log.warning("%s waits for the store: %s", what, error.message)
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
