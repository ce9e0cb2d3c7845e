"""`tlgan report`: what happened, on one page that needs nothing else."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Annotated

import typer

from jobs.output import Context
from tlgan.errors import BackendError, Conflict

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id, its beginning, or a name (the newest run of it).", show_default=False)
]
FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="HTML file to write; default: the run's id with .html.")
]


def report(ctx: Context, run: RunArgument, file: FileArgument = None) -> None:
    """Write one page about a run: images, lineage, curves, trials, metrics, commands. Prints the file's path.

    The page needs no network. A run that failed or is under way has one, too.
    """
    path = write_report(ctx, run, file)
    ctx.emit({"path": str(path), "bytes": path.stat().st_size}, str(path))


def write_report(ctx: Context, run: str, file: Path | None = None) -> Path:
    """Writes the page of `run` and returns its absolute path. The store is only read.

    Raises `NotFound` for an unknown run, `Conflict` when `file` is a folder, `BackendError` when it can't be written.
    """
    from cluster.runs import Runs
    from jobs.reporting import collect
    from tlgan.report import render

    artifacts = ctx.open_store()
    run_id = Runs(artifacts.store).get(run).done_by
    dest = (file or Path(f"{run_id}.html")).expanduser().absolute()
    if dest.is_dir():
        raise Conflict(f"{dest} is a folder; expected a file to write", hint=f"name it {dest / f'{run_id}.html'}")
    with ctx.progress(f"collecting what there is about {run_id}"):
        page = render(collect(artifacts, run_id))
    _write(page, dest)
    return dest


def _write(page: str, dest: Path) -> None:
    """Beside `dest`, then renamed: a browser that reloads never sees half a page."""
    temporary = dest.with_name(f".{dest.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, dest)
    except OSError as error:
        raise BackendError(
            f"can't write {dest}: {error.strerror or error}", hint="check the path and the space"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
