"""On whose behalf something is published: one attempt of a run. A later attempt of the same run takes the right away.

An attempt that slept through that can't go on where it stood: its leases are broken, so that what it was about to commit
finds a fence in its place (where the server can create a key once; elsewhere a version without an alias may appear); and
an alias is moved only from the state that was seen before the guard was asked.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from tlgan.manifest import Record

Guard = Callable[[], None]
"""Raises when this process may not publish any more."""


def free() -> None:
    """The guard of a process that nobody takes over."""


class Claim(Record):
    """Attempt number `attempt` (from 1) of run `run`."""

    run: str
    attempt: int = Field(ge=0)

    def outdates(self, run: str | None, attempt: int | None) -> bool:
        """Whether this is a later attempt of the same run."""
        return run == self.run and (attempt or 0) < self.attempt
