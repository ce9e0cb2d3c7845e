"""Verbs that run jobs."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import SetOption
from jobs.output import Context

RERUN = "Run again what was done before with the same recipe and inputs."


def run(
    ctx: Context,
    spec: Annotated[Path, typer.Argument(help="Spec file.")],
    set: SetOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help=RERUN)] = False,
) -> None:
    """Run a spec here, attached, to its end. A run that was interrupted goes on from its last checkpoint.

    Prints the run and what it published. Exit codes: 0 done, 7 a gate failed, 100 the run failed, 103 stopped.
    """
    from cluster.specfile import load_spec

    job = load_spec(spec, set or [])
    record = run_attached(ctx, job, fresh=fresh)
    ctx.emit(record.summary(), lambda: "\n".join(o["ref"] for o in record.outputs) or record.id)


def run_attached(ctx: Context, job: Any, *, fresh: bool = False) -> Any:
    """Runs `job` in this process and shows its progress; the first Ctrl-C asks it to stop, the second ends it."""
    artifacts = ctx.open_store()
    from jobs.execute import execute
    from jobs.progress import Progress
    from jobs.session import Session

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with Progress(ctx) as progress, Session(artifacts, progress, fresh) as session, _polite(session.interrupted, ctx):
        return execute(job, session)


class _polite:  # noqa: N801 - used as a function
    """While it lasts, Ctrl-C sets `asked` and only a second one interrupts."""

    def __init__(self, asked: threading.Event, ctx: Context) -> None:
        self.asked, self.ctx = asked, ctx

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        if self.asked.is_set():
            raise KeyboardInterrupt
        self.asked.set()
        self.ctx.say("stopping at the next tick, with a checkpoint (Ctrl-C again: at once)")

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)
