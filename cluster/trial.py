"""A trial of a sweep as it is stored and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """`state`: pending, running, paused (it waits for others, in the store), succeeded, stopped (early) or failed.

    `nimg`: images seen. `objective`: the best measured, at `best_nimg`; `params`: the values that made it.
    """

    trial: str
    params: dict[str, Any]
    state: str = "pending"
    nimg: int = 0
    objective: float | None = None
    reason: str | None = None
    best_nimg: int | None = None
