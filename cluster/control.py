"""Ending a run and taking one up again, for the command line and for Python."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from cluster.job import Job
from cluster.outcome import standing
from cluster.pinning import pinned_by
from cluster.runs import FINAL, RunRecord, Runs
from cluster.stopping import stop_key
from cluster.store import ArtifactStore
from cluster.submission import Submitted, refuse_other_spec, submit
from cluster.targets import make_target
from cluster.targets.base import Target
from tlgan.errors import Conflict
from tlgan.manifest import now_utc

AT_ONCE = "ended at once by a person"


def stop_run(runs: Runs, record: RunRecord, *, now: bool = False) -> bool:
    """Asks a run to stop at its next tick, with a checkpoint; `now`, or before it has begun, ends it. True when it has ended.

    Raises `Conflict` for a run that is not running, or that is attached to a terminal elsewhere.
    """
    if record.state in FINAL:
        raise Conflict(f"run {record.id} is not running, it is {record.state}")
    gone = standing(runs.store, record).gone
    if gone and not now:
        raise Conflict(f"run {record.id} is not running, its process is gone", hint=f"tlgan resume {record.id}")
    if not now and record.state != "pending":
        runs.store.put(stop_key(record.id, record.attempt), b"{}")
        return False
    told = record.submission or {}
    attached = not told.get("handle")
    if attached and not gone and record.host != socket.gethostname():
        raise Conflict(f"run {record.id} is attached to a terminal on {record.host}", hint="stop it without --now")
    runs.revise(record.id, _stopped)  # first the record: a driver that begins just now sees it and leaves
    if not attached:
        make_target(told["target"]["name"], told["target"]).end(told["handle"])
    elif not gone:
        os.kill(record.pid, signal.SIGKILL)
    return True


def _stopped(found: RunRecord) -> dict[str, Any]:
    if found.state in FINAL:
        raise Conflict(f"run {found.id} is not running, it is {found.state}")
    return {"state": "stopped", "reason": AT_ONCE, "finished": now_utc()}


def resume_run(record: RunRecord, job: Job, artifacts: ArtifactStore, target: Target | None = None) -> Submitted:
    """Submits a run again that failed or was stopped: with the inputs and the code it began with, from its last checkpoint.

    `job` may differ from the run's spec in resources only. `target`: default, the one it was submitted to.
    """
    if record.state == "succeeded":
        raise Conflict(f"run {record.id} has succeeded: nothing is left to do", hint="a changed spec makes another run")
    refuse_other_spec(record, job)
    if target is None:
        told = (record.submission or {}).get("target")
        target = make_target(told["name"], told) if told else make_target("local", {"kind": "local"})
    if record.submission is None:
        job = pinned_by(record, job)
    return submit(job, artifacts, target, resumes=record)
