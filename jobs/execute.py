"""Running a job: find out whether it was done before, keep its record, publish what it made. One path for every kind.

A kind is a module with `prepare(job, session) -> Plan`, which refuses what can't work before anything starts, and
`perform(plan, session, run) -> Outcome`, which does it; `run` is the record of this attempt.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

from cluster.alive import SILENT_SECONDS, Heartbeat, seconds_since_sign
from cluster.checkpoints import Checkpoints
from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.job import Job, TrainingJob
from cluster.patience import patiently
from cluster.runs import FINAL, RunRecord, new_record
from jobs.estimates import judged
from jobs.pin import Plan
from jobs.resuming import refuse_changed
from jobs.session import Session
from tlgan.errors import BackendError, Conflict, NotFound, RunFailed, RunStopped, TlganError
from tlgan.manifest import Manifest, now_utc

log = logging.getLogger("tlgan.jobs")
MODULES = {
    "pretrain": "jobs.kinds.gan",
    "finetune": "jobs.kinds.gan",
    "classifier": "jobs.kinds.classifier",
    "sweep": "jobs.kinds.sweep",
    "evaluate": "jobs.kinds.evaluate",
    "generate": "jobs.kinds.generate",
    "pipeline": "jobs.pipeline",
}
SAME = "same.json"


@dataclass
class Outcome:
    """What a job made. `failure` is raised once everything is recorded (a missed gate, say)."""

    outputs: list[Manifest] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failure: TlganError | None = None


@dataclass(frozen=True)
class Given:
    """The run that a job is to be, whatever its identity says: one that was submitted, or that goes on by `tlgan resume`."""

    run_id: str
    submission: str | None = None


def execute(job: Job, session: Session, given: Given | None = None) -> RunRecord:
    """Runs `job` to its end and returns its record; a job that was done before is not run again.

    Raises what made it impossible or made it fail; the record says the same. `given`: for a run that waits to begin.
    """
    if session.interrupted.is_set():
        raise RunStopped(f"{job.kind} {job.name} was not begun: stopped by a person")
    module = importlib.import_module(MODULES[job.kind])
    plan: Plan = module.prepare(job, session)
    plan.given_id = given.run_id if given else None
    with session.alone(plan.run_id):
        if cached := cached_run(plan, session):
            _move_aliases(plan, session, cached)
            told = {"type": "cached", "name": job.name, "kind": job.kind, "outputs": cached.outputs}
            session.listener(cached.id, told)
            return _adopt(plan, session, cached, given) if given else cached
        return _run(plan, session, module, given)


def _run(plan: Plan, session: Session, module: Any, given: Given | None) -> RunRecord:
    job, record = plan.job, _open(plan, session, given)
    tell = EventWriter(session.artifacts.store, record.id, lambda event: session.hear(record.id, event))
    tell({"type": "run", "state": "running", "name": job.name, "kind": job.kind, "inputs": plan.inputs})
    tell.flush()
    begun = time.monotonic()
    try:
        with Heartbeat(session.artifacts.store, record.id, record.attempt), session.told_elsewhere(job, record):
            outcome: Outcome = module.perform(plan, session, record)
    except BaseException as error:
        try:
            _close(record, session, tell, *_verdict(error, session), failure=failure_of(error))
        except (BackendError, Conflict) as problem:  # what went wrong first is what counts
            log.warning("the end of run %s was not recorded: %s", record.id, problem)
        if isinstance(error, TlganError | KeyboardInterrupt):
            raise
        raise RunFailed(f"run {record.id} failed: {type(error).__name__}: {error}") from error
    outputs = [{"ref": m.ref, "digest": m.digest} for m in outcome.outputs]
    state, reason = ("succeeded", None) if outcome.failure is None else ("failed", outcome.failure.message)
    failure = failure_of(outcome.failure) if outcome.failure else None
    seconds = time.monotonic() - begun
    told = patiently(lambda: judged(session.runs, record, seconds), f"the end of run {record.id}")
    facts = {**plan.facts, **outcome.facts, **told}
    record = _close(record, session, tell, state, reason, outputs=outputs, facts=facts, failure=failure)
    if outcome.failure:
        raise outcome.failure
    if plan.run_id != plan.own_id:
        patiently(lambda: session.runs.put_json(plan.own_id, SAME, {"run": record.id}), f"the end of run {record.id}")
    return record


def failure_of(error: BaseException) -> dict[str, Any] | None:
    """What a record keeps of an error, besides its message. None for a stop, which is no failure."""
    if isinstance(error, KeyboardInterrupt | RunStopped):
        return None
    if isinstance(error, TlganError):
        return {"code": error.code, "exit_code": error.exit_code, "hint": error.hint}
    return {"code": "internal", "exit_code": 1, "hint": None}


def same_run(plan: Plan, session: Session) -> RunRecord | None:
    """The record of a run of the same identity: its own, or that of a submitted one that did it."""
    found = session.runs.find(plan.own_id)
    if found is None and (other := session.runs.get_json(plan.own_id, SAME)):
        found = session.runs.find(other["run"])
    return found


def cached_run(plan: Plan, session: Session) -> RunRecord | None:
    """The record of the same run, if it succeeded and what it made is still there. Only reads."""
    found = same_run(plan, session)
    if found is None or session.fresh or found.state != "succeeded" or plan.payload.get("never_cached"):
        return None
    if (valid := plan.payload.get("valid")) and not valid(plan, found):
        return None
    try:
        manifests = [session.artifacts.resolve(f"{o['ref'].partition('@')[0]}@{o['digest']}") for o in found.outputs]
    except NotFound:
        return None
    return found if len(manifests) == len(found.outputs) else None


def _move_aliases(plan: Plan, session: Session, found: RunRecord) -> None:
    """Aliases go where they would if the run were run again now."""
    refs = [f"{o['ref'].partition('@')[0]}@{o['digest']}" for o in found.outputs]
    if isinstance(plan.job, TrainingJob):
        for manifest in map(session.artifacts.resolve, refs):
            for alias in ("latest", *plan.job.publishes.aliases):
                current = session.artifacts.aliases(manifest.name).get(alias)
                if current is None or current.digest != manifest.digest:
                    session.artifacts.move_alias(manifest.name, alias, manifest.digest)
    if repeat := plan.payload.get("repeat"):
        repeat(plan, session)


def _adopt(plan: Plan, session: Session, cached: RunRecord, given: Given) -> RunRecord:
    """A submitted run that turned out to be done already: its record says so, with the same outputs."""
    record = _open(plan, session, given)
    done = {"state": "succeeded", "finished": now_utc(), "outputs": cached.outputs}
    done["reason"] = f"unchanged: it was done before, by {cached.done_by}"
    return session.runs.update(record.id, **done, facts={**cached.facts, "same_as": cached.done_by})


def _open(plan: Plan, session: Session, given: Given | None = None) -> RunRecord:
    """A new record, or the old one of the same identity taken up again: the next attempt resumes from its checkpoint.

    Raises `Conflict` while the run is running, here or on another machine.
    """
    recipe = None if plan.recipe is None else plan.recipe.model_dump(mode="json")
    record = new_record(
        plan.run_id,
        plan.job.name,
        plan.job.kind,
        state="running",
        started=now_utc(),
        inputs=plan.inputs,
        spec=plan.job.to_dict(),
        recipe=recipe,
        facts=plan.facts,
        attempt=1,
    )
    if session.runs.find(plan.run_id) is None:
        try:
            return session.runs.create(record)
        except Conflict:  # somebody was faster: see whether that one still runs
            pass
    before: list[RunRecord] = []

    def taken_up(found: RunRecord) -> dict[str, Any]:
        if given:
            refuse_other_submission(found, given)
            if found.attempt and not session.fresh:
                refuse_changed(found, plan)
        _refuse_running(session, found, record)
        before[:] = [found]
        kept = {"attempt": found.attempt + 1, "created": found.created, "submission": found.submission}
        return {**record.model_dump(), **kept, "reason": None, "finished": None, "outputs": [], "failure": None}

    taken = session.runs.revise(record.id, taken_up)
    Fence(session.artifacts.store, taken.id, taken.attempt).shut_out_older()
    if before[0].state == "succeeded" or session.fresh:
        forget_progress(session, taken)
        if Checkpoints(session.artifacts.store, taken.id, attempt=taken.attempt).complete():
            log.warning("run %s goes on from its old checkpoints: this key may not delete them", taken.id)
    return taken


def refuse_other_submission(found: RunRecord, given: Given) -> None:
    """Raises `Conflict` when the run was submitted again since, `RunStopped` when it was stopped before it began."""
    if given.submission is None:
        return
    if (found.submission or {}).get("id") != given.submission:
        raise Conflict(f"run {found.id} was submitted again meanwhile", hint=f"`tlgan show {found.id}` shows that one")
    if found.state in FINAL:
        raise RunStopped(f"run {found.id} is {found.state} already: {found.reason or 'nothing is left to do'}")


def _refuse_running(session: Session, found: RunRecord, own: RunRecord) -> None:
    """Raises `Conflict` while the process that drives the run lives: by its number here, by its signs elsewhere."""
    if found.state != "running" or (found.pid, found.host) == (own.pid, own.host):
        return
    if found.process_is_alive:
        raise Conflict(f"run {found.id} is running already (process {found.pid})", hint="wait for it, or stop it")
    if found.process_is_alive is None:
        silent = seconds_since_sign(session.artifacts.store, found)
        if silent is not None and silent < SILENT_SECONDS:
            raise Conflict(
                f"run {found.id} is running already on {found.host} (process {found.pid}), last sign of life {silent:.0f} s ago",
                hint=f"`tlgan stop {found.id}` asks it to stop; if that machine is gone, try again in {SILENT_SECONDS:.0f} s",
            )


def forget_progress(session: Session, run: RunRecord) -> None:
    """Checkpoints of a run that has ended: nothing is resumed from them any more."""
    shutil.rmtree(session.workdir(run.id), ignore_errors=True)
    try:
        Checkpoints(session.artifacts.store, run.id, attempt=run.attempt).clear()
    except BackendError as error:
        log.warning("checkpoints of run %s were left in the store: %s", run.id, error)


def _verdict(error: BaseException, session: Session) -> tuple[str, str]:
    if isinstance(error, KeyboardInterrupt | RunStopped):
        return "stopped", session.why_stopped
    return "failed", str(error) or type(error).__name__


def _close(
    record: RunRecord, session: Session, tell: EventWriter, state: str, reason: str | None, **more: Any
) -> RunRecord:
    """Writes the end of this attempt down. Raises `Conflict` when a later one has begun: the record is that one's."""

    def ended(found: RunRecord) -> dict[str, Any]:
        if found.attempt != record.attempt:
            raise Conflict(
                f"run {record.id} was taken over by attempt {found.attempt}, this is attempt {record.attempt}"
            )
        if found.state in FINAL:  # somebody recorded the end of this attempt already: it is written once
            return {}
        return {"state": state, "reason": reason, "finished": now_utc(), **more}

    try:
        patiently(Fence(session.artifacts.store, record.id, record.attempt), f"the end of run {record.id}")
        tell({"type": "run", "state": state, "reason": reason, "name": record.name, "kind": record.kind, **more})
    finally:
        tell.close()
    return patiently(lambda: session.runs.revise(record.id, ended), f"the end of run {record.id}")
