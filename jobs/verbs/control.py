"""Verbs that act on a run: stop it, take it up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import OnOption, SetOption
from jobs.output import Context
from jobs.verbs.watch import RunArgument

if TYPE_CHECKING:
    from cluster.job import Job
    from cluster.runs import RunRecord, Runs

AT_ONCE = "ended at once by a person"
NOW = "End it now, without waiting for a checkpoint."


def stop(ctx: Context, run: RunArgument, now: Annotated[bool, typer.Option("--now", help=NOW)] = False) -> None:
    """Ask a run to stop at its next tick, with a checkpoint; --now ends its processes. `tlgan resume` goes on with it."""
    from cluster.outcome import standing
    from cluster.runs import Runs
    from cluster.stopping import stop_key
    from tlgan.errors import Conflict

    runs = Runs(ctx.open_store().store)
    record = runs.get(run)
    if record.state not in ("pending", "running"):
        raise Conflict(f"run {record.id} is not running, it is {record.state}")
    here = standing(runs.store, record)
    if here.gone and not now:
        raise Conflict(f"run {record.id} is not running, its process is gone", hint=f"tlgan resume {record.id}")
    if now or record.state == "pending":
        _end(runs, record, gone=here.gone)
        ctx.emit({"id": record.id, "asked": True, "now": True}, f"{record.id} is stopped")
    else:
        runs.store.put(stop_key(record.id), b"{}")
        ctx.emit({"id": record.id, "asked": True, "now": False}, f"{record.id} was asked to stop")
        ctx.say(f"tlgan wait {record.id}")


def _end(runs: Runs, record: RunRecord, *, gone: bool) -> None:
    """First the record, so that a driver that begins just now leaves; then whoever drives it."""
    import os
    import signal
    import socket

    from cluster.runs import FINAL
    from cluster.targets import make_target
    from tlgan.errors import Conflict
    from tlgan.manifest import now_utc

    def stopped(found: RunRecord) -> dict[str, Any]:
        if found.state in FINAL:
            raise Conflict(f"run {found.id} is not running, it is {found.state}")
        return {"state": "stopped", "reason": AT_ONCE, "finished": now_utc()}

    told = record.submission or {}
    attached = not told.get("handle")
    if attached and not gone and record.host != socket.gethostname():
        raise Conflict(f"run {record.id} is attached to a terminal on {record.host}", hint="stop it without --now")
    runs.revise(record.id, stopped)
    if not attached:
        make_target(told["target"]["name"], told["target"]).end(told["handle"])
    elif not gone:
        os.kill(record.pid, signal.SIGKILL)


def resume(
    ctx: Context,
    run: RunArgument,
    on: OnOption = None,
    set: SetOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it ends.")] = False,
) -> None:
    """Go on with a run that failed or was stopped, from its last checkpoint, with the inputs it began with.

    One that was submitted goes back to its target (or to --on); one of `tlgan run` goes on here, attached. -s changes how it
    runs (resources.workers=1), not what it makes: for that, submit the changed spec as a new run.
    """
    from cluster.specfile import parse_job
    from cluster.submission import refuse_other_spec
    from tlgan.errors import Conflict

    artifacts = ctx.open_store()
    from cluster.runs import Runs

    record = Runs(artifacts.store).get(run)
    if record.state == "succeeded":
        raise Conflict(f"run {record.id} has succeeded: nothing is left to do", hint="a changed spec makes another run")
    job = parse_job(record.spec, set or [])
    refuse_other_spec(record, job)
    if record.submission is None and on is None:
        _attached(ctx, record, job)
        return
    from cluster.submission import submit as start
    from cluster.targets import make_target, open_target
    from jobs.verbs.submit import tell

    target = (record.submission or {}).get("target")
    place = open_target(on) if on or target is None else make_target(target["name"], target)
    submitted = start(job, artifacts, place, resumes=record)
    tell(ctx, submitted, [])
    if follow:
        from jobs.verbs.follow import follow_to_end

        follow_to_end(ctx, record.id)


def _attached(ctx: Context, record: RunRecord, job: Job) -> None:
    from jobs.execute import Given
    from jobs.resuming import pinned_by
    from jobs.verbs.run import run_attached

    done = run_attached(ctx, pinned_by(record, job), given=Given(record.id))
    ctx.emit(done.summary(), lambda: "\n".join(o["ref"] for o in done.outputs) or done.id)
