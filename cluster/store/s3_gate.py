"""How many requests with data run at once, over all transfers of a store: more while that makes the answers come faster, half
as many when the server asks to slow down. A server far away is served best by many requests at once; one that shares the
machine, or does its work on one core, by few. What is in flight is in memory, so the gate bounds that too.
"""

from __future__ import annotations

import math
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
FIRST = 1  # at once; one stream of large pieces can keep a server on the same machine busy
SAMPLE = 4  # answers, at least, that a rate is taken from
GAIN = 1.1  # what faster means: noise is below
REST = 8  # samples before more is tried again where more did not help


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Gate:
    """`most`: the bound that is never passed; `first`: where it begins. Whoever enters leaves."""

    def __init__(self, most: int = 0, first: int = FIRST) -> None:
        self.most = most or max(4, min(CAP, PER_CORE * cores()))
        self._limit = self._best = min(first, self.most)
        self._rate, self._rest = 0.0, 0
        self._answers, self._since = 0, math.nan
        self._inside = self._weight = self._waiting = 0
        self._slowed = 0.0
        self._left = threading.Condition()

    @property
    def limit(self) -> int:
        return self._limit

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self, weight: int = 1) -> None:
        """Waits for room among the requests, and for that of its weight in `most`; something heavier than that goes alone."""
        with self._left:
            self._waiting += 1
            self._left.wait_for(lambda: not self._inside or self._has_room(weight))
            self._waiting -= 1
            self._inside, self._weight = self._inside + 1, self._weight + weight

    def leave(self, weight: int = 1) -> None:
        with self._left:
            self._inside, self._weight = self._inside - 1, self._weight - weight
            self._left.notify_all()

    def _has_room(self, weight: int) -> bool:
        return self._inside < self._limit and self._weight + weight <= self.most

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
        """Counts an answer. After a sample of them, goes on to more at once if the last step up paid, else back."""
        with self._left:
            now = time.monotonic()
            if not self._waiting or math.isnan(self._since):  # the gate holds nobody up: the rate says nothing of it
                self._answers, self._since = 0, now if self._waiting else math.nan
                return
            self._answers += 1
            if self._answers >= max(SAMPLE, 2 * self._limit):
                self._tune(self._answers / max(now - self._since, 1e-9))
                self._answers, self._since = 0, now
                self._left.notify_all()

    def _tune(self, rate: float) -> None:
        """One step up the hill; `rate`: answers a second at the present limit."""
        if self._limit <= self._best:  # as good as known: look whether more is better
            self._rate = rate
            self._rest = max(0, self._rest - 1)
        elif rate > GAIN * self._rate:
            self._rate, self._best = rate, self._limit
        else:
            self._limit, self._rest = self._best, REST
        if not self._rest:
            self._limit = min(self.most, max(self._limit + 1, self._limit * 3 // 2))

    def slower(self, started: float) -> None:
        """Half, once for all the requests that were under way together; `started` by the monotonic clock."""
        with self._left:
            if started >= self._slowed:
                self._limit = self._best = max(1, self._limit // 2)
                self._answers, self._since, self._rest = 0, math.nan, REST
                self._slowed = time.monotonic()
