"""`tlgan submit`: start a job on a target and come back at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import OnOption, SetOption
from jobs.output import Context
from jobs.verbs.run import RERUN

if TYPE_CHECKING:
    from cluster.submission import Submitted

FOLLOW = "Show the run's log until it ends, and end with its exit code: 0, 7, 100, 103. Ctrl-C leaves the run alone."


def submit(
    ctx: Context,
    spec: Annotated[Path, typer.Argument(help="Spec file.")],
    on: OnOption = None,
    set: SetOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=FOLLOW)] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help=RERUN)] = False,
) -> None:
    """Start a spec on a target, detached: prints the run's id at once, what was pinned, and the commands to go on with.

    The run outlives this shell. Spec and code travel through the store by digest; keys and tokens never do.
    """
    from cluster.specfile import load_spec

    job = load_spec(spec, set or [])
    from cluster.submission import submit as start
    from cluster.targets import open_target

    artifacts = ctx.open_store()
    submitted = start(job, artifacts, open_target(on), fresh=fresh)
    tell(ctx, submitted, _others(artifacts, submitted.record), followed=follow and submitted.started)
    if follow and submitted.started:
        from jobs.verbs.follow import follow_to_end

        follow_to_end(ctx, submitted.record.id)


def tell(ctx: Context, submitted: Submitted, others: list[str], followed: bool = False) -> None:
    """The run's id on stdout, the rest on stderr; under --json everything as one object, in one line if others follow."""
    from cluster.outcome import standing
    from cluster.pinning import local_paths

    record = submitted.record
    told = record.submission or {}
    steps = standing(ctx.open_store().store, record).next_steps if submitted.started else _commands(record)
    target = told.get("target", {}).get("name")
    more = {"submitted": submitted.started, "resumes": submitted.resumes, "target": target, "code": told.get("code")}
    (ctx.emit_line if followed else ctx.emit)(
        {**record.summary(), "inputs": record.inputs, **more, "next": steps}, record.id
    )
    if ctx.json:
        return
    if not submitted.started:
        ctx.say(f"{record.kind} unchanged, it was done before: {' '.join(o['ref'] for o in record.outputs)}")
    elif submitted.resumes:
        ctx.say(
            f"submitted to {target}: goes on where attempt {record.attempt} ended, from its last checkpoint if it left one"
        )
    else:
        ctx.say(f"submitted to {target}")
    if others and submitted.started and not submitted.resumes:
        ctx.say(
            f"the name {record.name} was used before for {', '.join(others[:3])}: another spec or code, so a new run"
        )
    for place, entry in record.inputs.items():
        ctx.say(f"  {place:<12} {entry['ref']}  {entry['digest'][:16]}")
    if told:
        ctx.say(f"  {'code':<12} {told['code']['ref']}")
    if submitted.started and told["target"]["kind"] != "local":
        for path in local_paths(record.spec):
            ctx.say(f"  {path} must be there on the nodes of {target}, too; `tlgan data pack` makes an artifact of it")
    for step in steps:
        ctx.say(f"  {step}")


def _commands(record: Any) -> list[str]:
    return [f"tlgan pull {output['ref']}" for output in record.outputs] + [f"tlgan show {record.id}"]


def _others(artifacts: Any, record: Any) -> list[str]:
    """Ids of other runs with the same name."""
    ids = artifacts.store.folders("runs/")
    same = [one for one in ids if one.rpartition("-")[0] == record.name and one != record.id]
    return [one for one in same if artifacts.store.head(f"runs/{one}/run.json")]
