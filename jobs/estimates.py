"""An estimate waits beside a run (runs/<run>/estimate.json) until the run has ended; then its record says how far off it was."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from cluster.runs import RunRecord, Runs
from tlgan.errors import BackendError, TlganError

ESTIMATE = "estimate.json"


def remember(runs: Runs, run_ids: Sequence[str], seconds: float, stages: list[dict[str, Any]]) -> bool:
    """Writes an estimate down for the runs that may come of a plan. False where the store may only be read."""
    try:
        for run_id in run_ids:
            runs.put_json(run_id, ESTIMATE, {"seconds": seconds, "stages": stages})
    except BackendError:
        return False
    return True


def judged(runs: Runs, record: RunRecord, seconds: float) -> dict[str, Any]:
    """The fact that a run of `seconds` was estimated, and the error as a share of what it took; empty without an estimate.

    A run that went on from an earlier attempt is not comparable.
    """
    with contextlib.suppress(TlganError):
        found = runs.get_json(record.id, ESTIMATE) if record.attempt == 1 else None
        if found:
            off = found["seconds"] / max(seconds, 1e-9) - 1
            return {"estimate": {"seconds": found["seconds"], "took": seconds, "error": off}}
    return {}
