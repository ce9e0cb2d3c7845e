"""How a person stops a run: an object in the store that every process of the run looks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cluster.store.base import Store
from tlgan.errors import BackendError

log = logging.getLogger("tlgan.stop")
ASK_EVERY_SECONDS = 2.0


def stop_key(run: str) -> str:
    """The object that asks `run` to stop. A trial is stopped with its sweep, the run that a person knows."""
    return f"runs/{run.partition('/')[0]}/stop.json"


def stop_signal(store: Store, run: str) -> Callable[[], bool]:
    """A function that asks the store, every two seconds at the most, whether a person wants the run to stop.

    A store that is away for a while does not end the run.
    """
    key = stop_key(run)
    last: float | None = None

    def should_stop() -> bool:
        nonlocal last
        if last is not None and time.monotonic() - last < ASK_EVERY_SECONDS:
            return False
        last = time.monotonic()
        try:
            return store.head(key) is not None
        except BackendError as error:
            log.warning("can't ask whether to stop: %s", error)
            return False

    return should_stop
