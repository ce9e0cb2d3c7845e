"""Verbs that wait for a run and show what it says. They need the store alone, and may only read it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.output import Context
from jobs.verbs.watch import RunArgument

if TYPE_CHECKING:
    from cluster.logs import LogLine
    from cluster.runs import RunRecord, Runs

POLL_SECONDS = 1.0
LAST_LINES_SECONDS = 10.0


def logs(
    ctx: Context,
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends.")] = False,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this worker.")] = None,
    trial: Annotated[str | None, typer.Option("--trial", help="Only this trial of a sweep.")] = None,
) -> None:
    """Print what the processes of a run said: its driver, its workers, its trials; all by time, or one of them."""
    from cluster.logs import read_logs, sources
    from tlgan.errors import NotFound

    runs = _runs(ctx)
    run_id = runs.get(run).id
    wanted = source_of(rank, trial)
    if follow:
        _follow(ctx, runs, run_id, wanted)
        return
    empty = True
    for line in read_logs(runs.store, run_id, wanted):
        empty = False
        _show(ctx, line)
    if empty:
        there = sources(runs.store, run_id)
        hint = f"there are logs of: {', '.join(there)}" if there else "`tlgan run` logs to its own terminal"
        raise NotFound(f"run {run_id} has no log{f' of {wanted}' if wanted else ''}", hint=hint)


def source_of(rank: int | None, trial: str | None) -> str | None:
    """The log's source that --rank and --trial name together."""
    of_trial = f"trial-{trial.zfill(3)}" if trial is not None else ""
    of_rank = f"rank-{rank}" if rank is not None else ""
    return "/".join(filter(None, [of_trial, of_rank])) or None


def _runs(ctx: Context) -> Runs:
    from cluster.runs import Runs

    return Runs(ctx.open_store().store)


def _follow(ctx: Context, runs: Runs, run_id: str, source: str | None) -> None:
    from cluster.logs import ENDED, read_logs
    from cluster.outcome import standing
    from cluster.runs import FINAL

    seen: set[str] = set()
    last = ""
    while True:
        record = runs.get(run_id)
        over = record.state in FINAL or standing(runs.store, record).gone
        for line in read_logs(runs.store, run_id, source, seen):
            _show(ctx, line)
            last = line.text
        if over and (last.startswith(ENDED) or not _still_writes(record)):
            return
        time.sleep(POLL_SECONDS)


def _still_writes(record: RunRecord) -> bool:
    """Whether last lines may be on their way: a run's verdict is there before the launcher of its driver has sent them."""
    if record.submission is None or record.finished is None:
        return False
    return datetime.now(UTC) - datetime.fromisoformat(record.finished) < timedelta(seconds=LAST_LINES_SECONDS)


def _show(ctx: Context, line: LogLine) -> None:
    ctx.emit_line(line, f"{line.time[11:19]} {line.source:<8} {line.text}")


def wait(
    ctx: Context,
    run: RunArgument,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds; 101 when it still runs then.")
    ] = None,
) -> None:
    """Wait until a run has ended, and end with its outcome: 0 done, 7 a gate failed, 100 failed, 101 not in time, 103 stopped.

    Prints the run as `tlgan ls` does, with the reason.
    """
    from cluster.outcome import outcome_error, wait_for

    runs = _runs(ctx)
    record = wait_for(runs, runs.get(run).id, timeout)
    ctx.emit(record.summary(), "\n".join(o["ref"] for o in record.outputs) or record.id)
    if error := outcome_error(record):
        raise error


def follow_to_end(ctx: Context, run_id: str) -> None:
    """Shows the driver's log while the run lasts. Raises what its outcome is; a Ctrl-C leaves the run as it is."""
    from cluster.outcome import outcome_error, wait_for

    runs = _runs(ctx)
    try:
        _follow(ctx, runs, run_id, "driver")
        record = wait_for(runs, run_id)
    except KeyboardInterrupt:
        ctx.say(f"{run_id} goes on: `tlgan logs {run_id} -f` shows it again, `tlgan stop {run_id}` ends it")
        raise
    if error := outcome_error(record):
        raise error
