"""Verbs that read run records. They need the store alone, and may only read it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, table

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.runs import Runs

RunArgument = Annotated[str, typer.Argument(help="Id, its beginning, or a name (the newest run of it).")]


def _runs(ctx: Context) -> Runs:
    from cluster.runs import Runs

    return Runs(ctx.open_store().store)


def ls(ctx: Context) -> None:
    """List the runs, newest first."""
    records = _runs(ctx).list()
    rows = [[r.id, r.kind, state_of(r), (r.started or "")[:19], " ".join(o["ref"] for o in r.outputs)] for r in records]
    text = table(rows, ["RUN", "KIND", "STATE", "STARTED", "OUTPUTS"]) if rows else "no runs yet"
    ctx.emit([r.summary() for r in records], text)


def state_of(record: Any) -> str:
    """The state, with a word when the process behind a running record is gone."""
    gone = record.state == "running" and record.process_is_alive is False
    return "running (its process is gone; run it again to resume)" if gone else str(record.state)


def show(ctx: Context, run: RunArgument) -> None:
    """Show a run: state and reason, inputs by digest, outputs, the spec as it was run."""
    import yaml

    record = _runs(ctx).get(run)
    lines = [f"{record.id}  {record.kind}  {state_of(record)}"]
    if record.reason:
        lines.append(f"reason    {record.reason}")
    lines.append(f"time      {record.started or '-'} to {record.finished or '-'}  (attempt {record.attempt})")
    lines += [f"input     {role}: {entry['ref']}  {entry['digest'][:16]}" for role, entry in record.inputs.items()]
    lines += [f"output    {o['ref']}" for o in record.outputs]
    lines += ["", yaml.safe_dump(record.spec, sort_keys=False).rstrip()]
    ctx.emit({**record.summary(), **record.model_dump(mode="json")}, "\n".join(lines))


def metrics(ctx: Context, run: RunArgument) -> None:
    """Print the metrics a run took: nimg, name, value."""
    runs = _runs(ctx)
    rows = runs.metrics(runs.get(run).id)
    text = table([[str(r["nimg"]), r["name"], f"{r['value']:.6g}"] for r in rows], ["NIMG", "METRIC", "VALUE"])
    ctx.emit(rows, text if rows else "no metrics")


def events(
    ctx: Context,
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends.")] = False,
) -> None:
    """Print the events of a run, oldest first; one JSON object a line under --json."""
    from cluster.runs import FINAL
    from jobs.progress import one_line

    runs = _runs(ctx)
    run_id = runs.get(run).id
    seen: set[str] = set()
    while True:
        over = not follow or runs.get(run_id).state in FINAL
        for event in runs.events(run_id, seen):
            ctx.emit_line(event, one_line(event))
        if over:
            return
        time.sleep(1.0)


def grid(
    ctx: Context,
    run: RunArgument,
    out: Annotated[str, typer.Argument(help="PNG to write.", metavar="FILE")] = "",
) -> None:
    """Save the newest sample grid of a run; prints the file's path."""
    from pathlib import Path

    from tlgan.errors import NotFound

    runs = _runs(ctx)
    run_id = runs.get(run).id
    grids = runs.grids(run_id)
    if not grids:
        raise NotFound(f"run {run_id} has no sample grid")
    nimg, key = list(grids.items())[-1]
    dest = Path(out or f"{run_id}.png")
    _save(runs, key, dest)
    ctx.emit({"path": str(dest.absolute()), "nimg": nimg}, str(dest.absolute()))


def _save(runs: Runs, key: str, dest: Path) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    dest.write_bytes(runs.store.get(key, max_bytes=256 << 20))


def leaderboard(ctx: Context, run: RunArgument) -> None:
    """The trials of a sweep, best first, with their parameters."""
    from tlgan.errors import SpecError

    runs = _runs(ctx)
    record = runs.get(run)
    if record.kind != "sweep":
        raise SpecError(f"{record.id} is of kind {record.kind}; expected a sweep")
    rows = runs.get_json(record.id, "leaderboard.json") or []
    paths = list(dict.fromkeys(path for row in rows for path in row["params"]))
    body = [
        [row["trial"], row["state"], f"{row['nimg'] / 1000:g}", _number(row["objective"]), _number(row.get("final"))]
        + [_number(row["params"].get(path)) for path in paths]
        for row in rows
    ]
    ctx.emit(rows, table(body, ["TRIAL", "STATE", "KIMG", "OBJECTIVE", "FINAL", *paths]) if rows else "no trials yet")


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def stop(ctx: Context, run: RunArgument) -> None:
    """Ask a running training to stop at its next tick, with a checkpoint. Running the same spec again resumes it."""
    from cluster.stopping import stop_key
    from tlgan.errors import Conflict

    runs = _runs(ctx)
    record = runs.get(run)
    if record.state != "running":
        raise Conflict(f"run {record.id} is not running, it is {record.state}")
    if record.process_is_alive is False:
        raise Conflict(f"run {record.id} is not running, its process is gone", hint="the same `tlgan run` resumes it")
    runs.store.put(stop_key(record.id), b"{}")
    ctx.emit({"id": record.id, "asked": True}, f"{record.id} was asked to stop")
