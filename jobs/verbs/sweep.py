"""Verbs of sweeps: look into a search, train failed trials again, add trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, table
from jobs.verbs.watch import RunArgument

if TYPE_CHECKING:
    from cluster.job import SweepJob
    from cluster.runs import RunRecord, Runs


def leaderboard(ctx: Context, run: RunArgument) -> None:
    """The trials of a sweep, best first, with their parameters."""
    runs, record = _sweep(ctx, run)
    rows = runs.get_json(record.id, "leaderboard.json") or []
    paths = list(dict.fromkeys(path for row in rows for path in row["params"]))
    body = [
        [row["trial"], row["state"], f"{row['nimg'] / 1000:g}", number(row["objective"]), number(row.get("final"))]
        + [number(row["params"].get(path)) for path in paths]
        for row in rows
    ]
    ctx.emit(rows, table(body, ["TRIAL", "STATE", "KIMG", "OBJECTIVE", "FINAL", *paths]) if rows else "no trials yet")


def show(
    ctx: Context,
    run: RunArgument,
    trial: Annotated[str, typer.Option("--trial", help="Only this trial, as in 003.")] = "",
) -> None:
    """How a search was decided: every suggestion, measurement and decision, with the reason, from its ledger."""
    from cluster.search.ledger import Ledger
    from tlgan.errors import NotFound

    runs, record = _sweep(ctx, run)
    ledger = Ledger(runs.store, record.id)
    entries = [entry for entry in ledger if not trial or entry.get("trial") == trial]
    if trial and not entries:
        raise NotFound(f"sweep {record.id} has no trial {trial}", hint="`tlgan sweep leaderboard` lists them")
    spent = next((entry["spent"] for entry in reversed(ledger.entries) if "spent" in entry), None)
    data = {"id": record.id, "state": record.state, "spent": spent, "entries": entries}
    ctx.emit(data, lambda: "\n".join(_shown(record, spent, entries)))


def _shown(record: RunRecord, spent: dict[str, float] | None, entries: list[dict[str, Any]]) -> list[str]:
    search = {"algo": "random", **(record.spec.get("search") or {})}
    lines = [f"{record.id}  {record.state}  {search['algo']}, {len({e.get('trial') for e in entries} - {None})} trials"]
    if spent:
        hours = {"wall": "h on the clock", "core": "core-hours", "gpu": "GPU-hours"}
        lines.append(
            "spent " + ", ".join(f"{spent[what] / 3600:.3g} {word}" for what, word in hours.items() if spent[what])
        )
    body = []
    for entry in sorted(entries, key=lambda e: e.get("trial", "")):
        at = f"{entry['nimg'] / 1000:g}" if "nimg" in entry else ""
        body.append([entry.get("trial", "-"), entry["type"], at, _why(entry)])
    return [*lines, "", table(body, ["TRIAL", "WHAT", "KIMG", "WHY"])]


def _why(entry: dict[str, Any]) -> str:
    if entry["type"] == "measured":
        return number(entry["value"])
    params = " ".join(f"{path}={number(value)}" for path, value in (entry.get("params") or {}).items())
    said = entry.get("why") or entry.get("reason") or entry.get("state") or str(entry.get("trials", ""))
    return f"{said}  ({params})" if params else str(said)


def retry(
    ctx: Context,
    run: RunArgument,
    trials: Annotated[list[str] | None, typer.Argument(metavar="[TRIAL]...", help="These; as in 003.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All trials that failed.")] = False,
) -> None:
    """Train trials that failed once more, here, and publish the winner anew. What was decided about others stands."""
    from cluster.search.ledger import Ledger
    from tlgan.errors import Conflict, NotFound, SpecError

    runs, record = _sweep(ctx, run)
    if bool(trials) == failed:
        raise SpecError("expected either --failed or the names of trials")
    job = _job_of(record)
    if job.search.algo == "pbt":
        raise Conflict("a population has gone on without the trials that failed; run the sweep anew with --fresh")
    rows = {row["trial"]: row for row in runs.get_json(record.id, "leaderboard.json") or []}
    wanted = trials or sorted(name for name, row in rows.items() if row["state"] == "failed")
    for name in wanted:
        if name not in rows:
            raise NotFound(f"sweep {record.id} has no trial {name}", hint="`tlgan sweep leaderboard` lists them")
        if rows[name]["state"] != "failed":
            raise Conflict(f"trial {name} of {record.id} has not failed, it is {rows[name]['state']}")
    if not wanted:
        raise Conflict(f"no trial of {record.id} has failed")
    _refuse_running(record)
    entries = [{"type": "again", "trial": name, "why": "a person asked for it"} for name in wanted]
    Ledger(runs.store, record.id).append(*entries)
    _go_on(ctx, record, job)


def extend(
    ctx: Context,
    run: RunArgument,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many the sweep shall have in all.")],
) -> None:
    """Add trials to a sweep, run them here, and publish the winner anew. What was decided about the others stands."""
    from cluster.search.ledger import Ledger
    from tlgan.errors import Conflict

    runs, record = _sweep(ctx, run)
    job, ledger = _job_of(record), Ledger(runs.store, record.id)
    if job.search.algo == "pbt":
        raise Conflict("a population can't grow once it has begun", hint="run the sweep with more search.trials")
    if any(entry["type"] == "exhausted" for entry in ledger):
        raise Conflict(f"the budget of {record.id} is used up", hint="run the spec with a larger search.budget")
    now = max([job.search.trials, *(entry["trials"] for entry in ledger if entry["type"] == "extended")])
    if trials <= now:
        raise Conflict(f"sweep {record.id} has {now} trials; expected more, received {trials}")
    _refuse_running(record)
    ledger.append({"type": "extended", "trials": trials, "why": "a person asked for it"})
    _go_on(ctx, record, job)


def _go_on(ctx: Context, record: RunRecord, job: SweepJob) -> None:
    """Runs the sweep of `record` on, as its ledger says."""
    from jobs.execute import Given
    from jobs.resuming import pinned_by
    from jobs.verbs.run import run_attached

    done = run_attached(ctx, pinned_by(record, job), given=Given(record.id))
    ctx.emit(done.summary(), lambda: "\n".join(o["ref"] for o in done.outputs) or done.id)


def _job_of(record: RunRecord) -> SweepJob:
    from cluster.job import SweepJob
    from cluster.specfile import parse_job

    job = parse_job(record.spec)
    assert isinstance(job, SweepJob)
    return job


def _refuse_running(record: RunRecord) -> None:
    from tlgan.errors import Conflict

    if record.state == "running" and record.process_is_alive is not False:
        raise Conflict(f"run {record.id} is running", hint=f"wait for it, or `tlgan stop {record.id}`")


def _sweep(ctx: Context, run: str) -> tuple[Runs, RunRecord]:
    from cluster.runs import Runs
    from tlgan.errors import SpecError

    runs = Runs(ctx.open_store().store)
    record = runs.get(run)
    if record.kind != "sweep":
        raise SpecError(f"{record.id} is of kind {record.kind}; expected a sweep")
    return runs, record


def number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
