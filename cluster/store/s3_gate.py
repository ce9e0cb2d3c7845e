"""How many requests with data run at once, over all transfers of a store: one more while all goes well, half as many when
the server asks to slow down (additive increase, multiplicative decrease). What is in flight is in memory, so the gate
bounds that too.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from cluster.store.s3_errors import wants_slower, was_damaged

A = TypeVar("A", bound=Mapping[str, Any])

PER_CORE = 4
CAP = 12
ROUNDS = 3


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Gate:
    """`most`: the bound that is never passed. Whoever enters leaves."""

    def __init__(self, most: int = 0) -> None:
        self.most = most or max(4, min(CAP, PER_CORE * cores()))
        self._limit = max(1.0, self.most / 2)
        self._inside = 0
        self._slowed = 0.0
        self._left = threading.Condition()

    @property
    def limit(self) -> int:
        return int(self._limit)

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self, weight: int = 1) -> None:
        """Waits for room; something heavier than the whole gate goes alone."""
        with self._left:
            self._left.wait_for(lambda: not self._inside or self._inside + weight <= self.limit)
            self._inside += weight

    def leave(self, weight: int = 1) -> None:
        with self._left:
            self._inside -= weight
            self._left.notify_all()

    def patiently(self, send: Callable[[], A]) -> A:
        """The answer of `send`, a call of the client that may be repeated. Repeats it while the server wants it slower,
        and when the body was damaged on the way.
        """
        for attempt in range(1, ROUNDS + 1):
            started = time.monotonic()
            try:
                answer = send()
            except (ClientError, ReadTimeoutError, ConnectTimeoutError) as error:
                if isinstance(error, ClientError) and was_damaged(error) and attempt < ROUNDS:
                    continue
                if isinstance(error, ClientError) and not wants_slower(error):
                    raise
                self.slower(started)
                if attempt == ROUNDS or not isinstance(error, ClientError):  # the client itself waits long enough
                    raise
                time.sleep(random.uniform(0.25, 0.5) * 2**attempt)
            else:
                if answer["ResponseMetadata"].get("RetryAttempts"):
                    self.slower(started)
                else:
                    self.faster()
                return answer
        raise AssertionError("unreachable")

    def faster(self) -> None:
        """One more for each round of answers."""
        with self._left:
            self._limit = min(float(self.most), self._limit + 1 / self._limit)
            self._left.notify_all()

    def slower(self, started: float) -> None:
        """Half, once for all the requests that were under way together; `started` by the monotonic clock."""
        with self._left:
            if started >= self._slowed:
                self._limit = max(1.0, self._limit / 2)
                self._slowed = time.monotonic()
