"""Verbs that act on a run: stop it, take it up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import OnOption, SetOption
from jobs.output import Context
from jobs.verbs.watch import RunArgument

if TYPE_CHECKING:
    from cluster.job import Job
    from cluster.runs import RunRecord

NOW = "End it now, without waiting for a checkpoint."


def stop(ctx: Context, run: RunArgument, now: Annotated[bool, typer.Option("--now", help=NOW)] = False) -> None:
    """Ask a run to stop at its next tick, with a checkpoint; --now ends its processes. `tlgan resume` goes on with it."""
    from cluster.control import stop_run
    from cluster.runs import Runs

    runs = Runs(ctx.open_store().store)
    record = runs.get(run)
    ended = stop_run(runs, record, now=now)
    ctx.emit(
        {"id": record.id, "asked": True, "now": ended}, f"{record.id} {'is stopped' if ended else 'was asked to stop'}"
    )
    ctx.say(f"next: tlgan {'resume' if ended else 'wait'} {record.id}")


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
    from cluster.control import resume_run
    from cluster.runs import Runs
    from cluster.specfile import parse_job
    from cluster.submission import refuse_other_spec
    from cluster.targets import open_target
    from jobs.verbs.submit import tell

    artifacts = ctx.open_store()
    record = Runs(artifacts.store).get(run)
    job = parse_job(record.spec, set or [])
    if record.submission is None and on is None and record.state != "succeeded":
        refuse_other_spec(record, job)
        _attached(ctx, record, job)
        return
    tell(ctx, resume_run(record, job, artifacts, open_target(on) if on else None), [], followed=follow)
    if follow:
        from jobs.verbs.follow import follow_to_end

        follow_to_end(ctx, record.id)


def _attached(ctx: Context, record: RunRecord, job: Job) -> None:
    from cluster.pinning import pinned_by
    from jobs.execute import Given
    from jobs.verbs.run import run_attached

    done = run_attached(ctx, pinned_by(record, job), given=Given(record.id))
    ctx.emit(done.summary(), lambda: "\n".join(o["ref"] for o in done.outputs) or done.id)
