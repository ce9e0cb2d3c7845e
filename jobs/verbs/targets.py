"""Verbs about the places where jobs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import OnOption, SetOption
from jobs.output import Context, table
from tlgan.errors import SpecError


def ls(ctx: Context) -> None:
    """List the targets of tlgan.yaml, and local, which is always there. The one that holds without --on is marked."""
    from cluster.config import read_settings
    from cluster.targets import known_targets, make_target

    default = read_settings()["target"].value
    known = known_targets()
    rows = [{"name": name, **settings, "default": name == default} for name, settings in known.items()]
    shown = [
        [
            "*" if row["default"] else "",
            row["name"],
            str(row.get("kind")),
            str(row.get("address") or row.get("image") or ""),
        ]
        for row in rows
    ]
    ctx.emit(rows, table(shown, ["", "TARGET", "KIND", "WHERE"]))
    for name, settings in known.items():
        try:
            make_target(name, settings)
        except SpecError as error:
            ctx.say(f"warning: {error.message}")


def check(
    ctx: Context, target: Annotated[str | None, typer.Argument(help="Default: the one that holds without --on.")] = None
) -> None:
    """Ask a target whether it is there, lets us in and has room. Exit code 5 when it can't be used."""
    from cluster.targets import open_target

    found = open_target(target)
    rows = [("target", f"{found.name} ({found.kind})"), *found.findings()]
    ctx.emit(dict(rows), table([[name, text] for name, text in rows], ["", ""]).lstrip("\n"))


def render(
    ctx: Context,
    spec: Annotated[Path, typer.Argument(help="Spec file.")],
    on: OnOption = None,
    set: SetOption = None,
) -> None:
    """Print the RayJob that `submit` would apply, for a machine that has kubectl: `tlgan render SPEC --on T | kubectl apply -f -`.

    Everything the job needs is put into the store now; the run waits, pending, until somebody applies what is printed.
    """
    from cluster.specfile import load_spec

    job = load_spec(spec, set or [])
    from cluster.submission import submit
    from cluster.targets import open_target
    from tlgan.errors import Conflict

    submitted = submit(job, ctx.open_store(), open_target(on), render=True)
    record = submitted.record
    if submitted.request is None:
        raise Conflict(f"run {record.id} has succeeded: nothing is left to do", hint=f"tlgan show {record.id}")
    ctx.emit({"run": record.id, "manifest": submitted.request}, submitted.request.rstrip("\n"))
    ctx.say(f"{record.id} waits for it: tlgan wait {record.id}")
