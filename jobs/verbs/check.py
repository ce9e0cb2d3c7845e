"""Verbs that look at a spec without running it."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.options import SetOption
from jobs.output import Context, counted


def validate(
    ctx: Context,
    specs: Annotated[list[str], typer.Argument(metavar="SPEC", help="Spec files.", show_default=False)],
    overrides: SetOption = None,
) -> None:
    """Check spec files and show every mistake with its line."""
    from cluster.specfile import check_files
    from tlgan.errors import SpecError

    jobs, problems = check_files(specs, overrides or [])
    if problems:
        raise SpecError(problems)
    data = [{"name": job.name, "kind": job.kind} for job in jobs]
    ctx.emit(data, "")
    ctx.say(f"{counted(len(jobs), 'spec')} valid: {', '.join(f'{job.kind} {job.name}' for job in jobs)}")


def schema(
    ctx: Context,
    kind: Annotated[str | None, typer.Argument(help="pretrain, finetune, sweep, ...; default: all kinds.")] = None,
) -> None:
    """Print the JSON Schema of spec files, for editors."""
    from cluster.schema import json_schema

    ctx.emit(json_schema(kind))
