"""Verbs that read run records. They need the store alone, and may only read it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.output import Context, table

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.runs import RunRecord, Runs

WATCH_SECONDS = 2.0
RunArgument = Annotated[str, typer.Argument(help="Id, its beginning, or a name (the newest run of it).")]


def _runs(ctx: Context) -> Runs:
    from cluster.runs import Runs

    return Runs(ctx.open_store().store)


def ls(
    ctx: Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on and show what changes, until Ctrl-C.")] = False,
) -> None:
    """List the runs, newest first."""
    runs = _runs(ctx)
    if watch:
        return _watch(ctx, runs)
    records = runs.list()
    ctx.emit([r.summary() for r in records], _listing(runs, records) if records else "")
    if not records:
        ctx.say(f"no runs in {runs.store.url} yet")
    return None


def _listing(runs: Runs, records: list[RunRecord]) -> str:
    from cluster.outcome import standing

    rows = [
        [r.id, r.kind, standing(runs.store, r).text, (r.started or "")[:19], " ".join(o["ref"] for o in r.outputs)]
        for r in records
    ]
    return table(rows, ["RUN", "KIND", "STATE", "STARTED", "OUTPUTS"]) if rows else "no runs yet"


def _watch(ctx: Context, runs: Runs) -> None:
    """On a terminal the table, again and again; elsewhere a line for each run whose state has changed."""
    from cluster.outcome import standing

    live = sys.stdout.isatty() and not ctx.json
    before: dict[str, str] = {}
    while True:
        records = runs.list()
        states = {record.id: standing(runs.store, record).text for record in records}
        if live:
            print(f"\x1b[H\x1b[2J{_listing(runs, records)}", flush=True)
        for record in [] if live else reversed(records):
            if before.get(record.id) != states[record.id]:
                ctx.emit_line(record.summary(), f"{record.id}  {record.kind} {states[record.id]}")
        before = states
        time.sleep(WATCH_SECONDS)


def show(ctx: Context, run: RunArgument) -> None:
    """Show a run: state, reason and next step, inputs by digest, outputs, where it runs, the spec as it was run."""
    import yaml

    from cluster.outcome import standing

    runs = _runs(ctx)
    record = runs.get(run)
    here = standing(runs.store, record)
    lines = [f"{record.id}  {record.kind}  {here.text}"]
    if record.reason:
        lines.append(f"reason    {record.reason}")
    lines += [f"{'next' if not i else '':<10}{command}" for i, command in enumerate(here.next_steps)]
    lines.append(f"time      {record.started or '-'} to {record.finished or '-'}  (attempt {record.attempt})")
    lines += [_place(record)] if record.submission else []
    lines += [f"input     {role}: {entry['ref']}  {entry['digest'][:16]}" for role, entry in record.inputs.items()]
    lines += [f"output    {o['ref']}" for o in record.outputs]
    lines += ["", yaml.safe_dump(record.spec, sort_keys=False).rstrip()]
    told = {**record.summary(), **record.model_dump(mode="json"), "standing": here.text, "next": here.next_steps}
    ctx.emit(told, "\n".join(lines))


def _place(record: RunRecord) -> str:
    told = record.submission or {}
    handle = told.get("handle") or {}
    where = (
        handle.get("job") or handle.get("name") or (f"process {handle['pid']} on {handle['host']}" if handle else "-")
    )
    return f"target    {told['target']['name']} ({told['target']['kind']})  {where}  code {told['code']['ref']}"


def metrics(ctx: Context, run: RunArgument) -> None:
    """Print the metrics a run took: nimg, name, value."""
    runs = _runs(ctx)
    rows = runs.metrics(runs.get(run).done_by)
    text = table([[str(r["nimg"]), r["name"], f"{r['value']:.6g}"] for r in rows], ["NIMG", "METRIC", "VALUE"])
    ctx.emit(rows, text if rows else "")
    if not rows:
        ctx.say(f"no metrics of {run} yet")


def events(
    ctx: Context,
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends.")] = False,
) -> None:
    """Print the events of a run, oldest first; one JSON object a line under --json."""
    from cluster.outcome import standing
    from cluster.runs import FINAL
    from jobs.progress import one_line

    runs = _runs(ctx)
    run_id = runs.get(run).id
    seen: set[str] = set()
    while True:
        record = runs.get(run_id)
        over = not follow or record.state in FINAL or standing(runs.store, record).gone
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
    run_id = runs.get(run).done_by
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
