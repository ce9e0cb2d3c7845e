"""Signs of life of a run, so that another machine does not start what is still running here.

runs/<run>/alive/<attempt>.json     written again and again while the attempt lives; removed at its end by who may

How long ago the last one was is told by the server's clock alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import uuid
from datetime import datetime

from cluster.discard import discard
from cluster.runs import RunRecord
from cluster.store.base import Store
from tlgan.errors import BackendError

log = logging.getLogger("tlgan.alive")
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""Without a sign for so long, a run counts as dead."""


class Heartbeat:
    """Gives a sign every `period` seconds inside a `with` block. A store that is away for a while does not end the run."""

    def __init__(self, store: Store, run: str, attempt: int, period: float = BEAT_SECONDS) -> None:
        self.store, self.key, self.period = store, _key(run, attempt), period
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tlgan-alive")

    def __enter__(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(BackendError):
            discard(self.store, [self.key])

    def _work(self) -> None:
        while not self._over.wait(self.period):
            self._beat()

    def _beat(self) -> None:
        try:
            self.store.put(self.key, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        except BackendError as error:
            log.warning("no sign of life could be given: %s", error)


def last_sign(store: Store, record: RunRecord) -> datetime | None:
    """When the attempt that `record` tells of gave its last sign, by the server's clock. Only reads."""
    sign = store.head(_key(record.id, record.attempt))
    return sign.modified if sign else None


def seconds_since_sign(store: Store, record: RunRecord) -> float | None:
    """Seconds since the last sign of the attempt that `record` tells of; None when there is none."""
    sign = store.head(_key(record.id, record.attempt))
    if sign is None:
        return None
    mark = f"runs/{record.id}/alive/asked-{uuid.uuid4().hex[:8]}"
    store.put(mark, b"{}")
    now = store.head(mark)
    discard(store, [mark])
    return max(0.0, (now.modified - sign.modified).total_seconds()) if now else None


def _key(run: str, attempt: int) -> str:
    return f"runs/{run}/alive/{attempt}.json"
