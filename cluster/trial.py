"""A trial of a sweep as it is stored and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """`state`: pending, running, succeeded, stopped (early, by the scheduler) or failed. `objective`: the best measured."""

    trial: str
    params: dict[str, Any]
    state: str = "pending"
    nimg: int = 0
    objective: float | None = None
    reason: str | None = None


def ended(nimg: int, total: int) -> dict[str, Any]:
    """State and reason of a trial that ended without an error after `nimg` of `total` images."""
    if nimg >= total:
        return {"state": "succeeded", "reason": None}
    return {"state": "stopped", "reason": "stopped early by ASHA"}
