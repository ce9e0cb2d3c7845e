"""What runs still need of a store: a run that has not succeeded can be resumed, from its pinned inputs and its own code."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cluster.runs import FINAL, RunRecord, Runs
from cluster.store.base import Store

RESUMABLE = timedelta(days=30)
"""How long after its end a run that failed or was stopped still holds what it needs."""


def held_by_runs(store: Store, now: datetime | None = None) -> dict[str, str]:
    """Digest of a manifest -> the run that needs it, in words."""
    now = now or datetime.now(UTC)
    held: dict[str, str] = {}
    for record in Runs(store).list():
        if _may_go_on(record, now):
            for digest in _needs(record):
                held.setdefault(digest, f"needed by run {record.id}, which is {record.state}")
    return held


def _may_go_on(record: RunRecord, now: datetime) -> bool:
    if record.state not in FINAL:
        return True
    ended = datetime.fromisoformat(record.finished or record.created)
    return record.state != "succeeded" and now - ended <= RESUMABLE


def _needs(record: RunRecord) -> Iterator[str]:
    told = [*record.inputs.values(), (record.submission or {}).get("code")]
    yield from (one["digest"] for one in told if isinstance(one, dict) and isinstance(one.get("digest"), str))
