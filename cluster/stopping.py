"""How a person stops a run: an object in the store that every process of the run looks for.

It names the attempt it is meant for: the next one goes on even where nobody may delete it.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable

from cluster.store.base import Store

log = logging.getLogger("tlgan.stop")
ASK_EVERY_SECONDS = 2.0


def stop_key(run: str, attempt: int) -> str:
    """The object that asks `run` to stop. A trial is stopped with its sweep, the run that a person knows."""
    return f"runs/{run.partition('/')[0]}/stop-{attempt}.json"


def stop_signal(store: Store, run: str, attempt: int) -> Callable[[], bool]:
    """A function that says whether a person wants the run to stop. It answers at once: a thread asks the store.

    A store that is away for a while neither ends the run nor holds it up.
    """
    return watch(store, stop_key(run, attempt))


def resize_key(run: str, launch: str) -> str:
    """The object that asks the workers of a launch of `run` to leave, because there is room for more of them."""
    return f"runs/{run}/resize-{launch}.json"


def watch(store: Store, key: str) -> Callable[[], bool]:
    """A function that says whether there is such an object; see `stop_signal`."""
    return _Signal(store, key)


class _Signal:
    """Asks every two seconds from the first call on, until it is forgotten or the answer is yes."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self) -> bool:
        if self._thread is None:
            self._ask()
            self._thread = threading.Thread(
                target=_keep_asking, args=(weakref.ref(self),), daemon=True, name="tlgan-stop"
            )
            self._thread.start()
        return self._asked.is_set()

    def _ask(self) -> bool:
        try:
            if self.store.head(self.key) is not None:
                self._asked.set()
        except Exception as error:  # whatever it is: a thread that ends would never hear a stop
            log.warning("can't ask whether to stop: %s", error)
        return self._asked.is_set()


def _keep_asking(signal: weakref.ref[_Signal]) -> None:
    while True:
        time.sleep(ASK_EVERY_SECONDS)
        one = signal()
        if one is None or one._ask():
            return
        del one
