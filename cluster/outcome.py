"""How a run stands, told by its record and its signs of life: the outcome with its exit code, and what to do next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cluster.alive import SILENT_SECONDS, last_sign
from cluster.runs import FINAL, RunRecord, Runs
from cluster.store.base import Store
from cluster.targets import make_target
from tlgan.errors import BackendError, Collapsed, GateFailed, RunFailed, RunStopped, RunTimeout, SpecError

POLL_SECONDS = 1.0
ASK_TARGET_SECONDS = 15.0
LAST_WORD_SECONDS = 10.0  # in which a driver that is gone, or who watched over it, may still have written its verdict


@dataclass(frozen=True)
class Standing:
    """`gone`: the record says it runs, but whoever drove it does not live any more. `silent`: seconds since the last sign."""

    record: RunRecord
    gone: bool = False
    silent: float | None = None

    @property
    def text(self) -> str:
        """The state, and a word where it is not the whole truth."""
        state = self.record.state
        if self.gone:
            return f"{state} (its process is gone)"
        if state == "running" and self.silent is not None and self.silent > SILENT_SECONDS:
            return f"{state} (no sign of life for {self.silent:.0f} s)"
        return str(state)

    @property
    def next_steps(self) -> list[str]:
        """Commands that a person would give now."""
        record, lost = self.record, self.gone or (self.silent or 0) > SILENT_SECONDS
        if shown := _look_at(record):
            return [shown]
        if record.state in ("failed", "stopped") or lost:
            look = [f"tlgan logs {record.id}"] if record.state != "stopped" and record.submission else []
            return [*look, f"tlgan resume {record.id}"]
        if record.state in ("pending", "running"):
            follow = f"tlgan logs {record.id} -f" if record.submission else f"tlgan events {record.id} -f"
            return [follow, f"tlgan wait {record.id}", f"tlgan stop {record.id}"]
        return [f"tlgan pull {output['ref']}" for output in record.outputs] or [f"tlgan report {record.id}"]


def standing(store: Store, record: RunRecord) -> Standing:
    """Needs to read the store only: silence is measured on this machine's clock."""
    if record.state in FINAL:
        return Standing(record)
    if record.process_is_alive is not None and record.state == "running":
        return Standing(record, gone=not record.process_is_alive)
    if record.state == "pending":
        handle = (record.submission or {}).get("handle") or {}
        if "pid" in handle:
            try:
                told = make_target("local", {"kind": "local"}).progress(handle)
            except KeyError:
                return Standing(record)
            return Standing(record, gone=told.state == "ended")
        return Standing(record)
    sign = last_sign(store, record)
    return Standing(record, silent=None if sign is None else max(0.0, (datetime.now(UTC) - sign).total_seconds()))


def outcome_error(record: RunRecord) -> RunFailed | RunStopped | None:
    """What `run` would have raised for this end; None for success. A missed gate keeps its own exit code."""
    if record.state == "succeeded":
        return None
    reason = record.reason or "no reason was recorded"
    if record.state == "stopped":
        return RunStopped(f"run {record.id} was stopped: {reason}", hint=f"`tlgan resume {record.id}` goes on with it")
    failure = record.failure or {}
    next_step = _look_at(record) or f"tlgan resume {record.id}"
    error = RunFailed(f"run {record.id} failed: {reason}", hint=failure.get("hint") or next_step)
    if failure.get("code") == GateFailed.code:
        error.exit_code, error.code = failure["exit_code"], failure["code"]
    return error


def _look_at(record: RunRecord) -> str | None:
    """What shows why a run failed that would fail again: the numbers that a gate refused, the samples of what a guard ended."""
    code = (record.failure or {}).get("code") if record.state == "failed" else None
    verb = {GateFailed.code: "metrics", Collapsed.code: "report"}.get(str(code))
    return verb and f"tlgan {verb} {record.id}"


def wait_for(
    runs: Runs, run_id: str, timeout: float | None = None, look: Callable[[RunRecord], None] = lambda record: None
) -> RunRecord:
    """The record once the run has ended, however it ended. `look` sees it every second until then.

    Raises `RunTimeout` after `timeout` seconds, `RunFailed` when whoever drove it is gone without a word.
    """
    begun = asked = time.monotonic()
    why: str | None = None
    lost_since: float | None = None
    while True:
        record = runs.get(run_id)
        look(record)
        if record.state in FINAL:
            return record
        now = time.monotonic()
        here = standing(runs.store, record)
        if timeout is not None and now - begun >= timeout:
            raise RunTimeout(f"run {run_id} is still {here.text} after {timeout:g} s", hint=f"tlgan show {run_id}")
        if here.gone:
            why = "its process is gone"
        elif here.silent is not None and here.silent < SILENT_SECONDS:
            why = None
        elif now - asked > ASK_TARGET_SECONDS:
            asked, why = now, _ended_by_target(record)
        lost_since = (lost_since or now) if why else None
        if lost_since is not None and now - lost_since > LAST_WORD_SECONDS:
            raise RunFailed(f"run {run_id} ended without a word: {why}", hint=f"tlgan resume {run_id}")
        time.sleep(POLL_SECONDS)


def _ended_by_target(record: RunRecord) -> str | None:
    """What the target says of a driver that has ended; None while it lives, and when the target can't tell."""
    told = record.submission or {}
    if not told.get("handle"):
        return None
    try:
        said = make_target(told["target"]["name"], told["target"]).progress(told["handle"])
    except (BackendError, SpecError):
        return None
    return said.message if said.state == "ended" else None
