"""Verbs that run jobs."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import SetOption
from jobs.output import Context, table
from tlgan.errors import NotFound, SpecError

QUICK, FULL = 2_000, 50_000
SAME_SECONDS = 2.0
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


def evaluate(
    ctx: Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:alias or name@digest.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Reference images: a source, a folder or a dataset artifact.")
    ],
    metrics: Annotated[
        str, typer.Option("--metrics", "-m", help="Separated by commas, or all.")
    ] = "fid,kid,precision,recall",
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=16, help=f"Generated images; 2000 to 10000: quick.  [default: {QUICK}]"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="50000 generated images, as published numbers have it.")] = False,
    set: SetOption = None,
) -> None:
    """Measure a published generator against reference images. -s changes the rest, as in -s data.split=test."""
    from cluster.specfile import parse_job
    from tlgan.naming import ArtifactRef
    from tlgan.registry import METRICS

    name = ArtifactRef.parse(ref).name
    spec = {"kind": "evaluate", "name": f"{name}-eval", "target": {"artifact": ref}, "data": _data_of(data)}
    if full and samples is not None:
        raise SpecError(f"expected --samples or --full; received both (--full is --samples {FULL})")
    names = list(METRICS) if metrics == "all" else metrics.split(",")
    job = parse_job({**spec, "metrics": names, "samples": FULL if full else samples or QUICK}, set or [])
    record = run_attached(ctx, job)
    from cluster.runs import Runs

    rows = Runs(ctx.open_store().store).metrics(record.id)
    shown = [[row["name"], f"{row['value']:.6g}", row["protocol"].get("protocol", "")] for row in rows]
    ctx.emit(rows, table(shown, ["METRIC", "VALUE", "PROTOCOL"]))


def _data_of(text: str) -> dict[str, str]:
    """A source's name, a folder, or a reference, as the `data` section of a spec."""
    from tlgan.registry import SOURCES

    if Path(text).is_dir():
        return {"source": "folder", "path": text}
    if text.startswith((".", "/", "~")) or text.endswith("/"):
        raise NotFound(
            f"there is no folder {text}", hint="--data takes a folder, a source, or a dataset artifact name:alias"
        )
    if text.partition(":")[0] in SOURCES:
        return {"source": text}
    return {"artifact": text}


def run_attached(ctx: Context, job: Any, *, fresh: bool = False, given: Any = None) -> Any:
    """Runs `job` in this process and shows its progress; the first Ctrl-C asks it to stop, the second ends it.

    `given`: a `jobs.execute.Given`, the run to go on with.
    """
    artifacts = ctx.open_store()
    from cluster.jsonlog import set_up
    from jobs.execute import execute
    from jobs.progress import Progress
    from jobs.session import Session

    set_up()
    try:
        with (
            Progress(ctx) as progress,
            Session(artifacts, progress, fresh) as session,
            _polite(session, ctx),
        ):
            return execute(job, session, given)
    except KeyboardInterrupt:
        if any(thread.name.startswith("stage ") for thread in threading.enumerate()):
            sys.stderr.flush()
            os._exit(130)  # a stage still computes in its thread; the interpreter can't end under it in order
        raise


class _polite:  # noqa: N801 - used as a function
    """While it lasts, Ctrl-C or SIGTERM asks the session to stop, and only a second one interrupts.

    A SIGTERM that comes twice at once is one: to this process and to its group, as by `timeout` and by launchers.
    """

    def __init__(self, session: Any, ctx: Context) -> None:
        self.session, self.ctx, self.last = session, ctx, -math.inf
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGTERM:
            before, self.last = self.last, time.monotonic()
            if self.last - before < SAME_SECONDS:
                return
        if self.session.interrupted.is_set():
            raise KeyboardInterrupt
        again = "Ctrl-C again: at once"
        if number == signal.SIGTERM:  # a node that is shut down, a job that is cancelled
            self.session.why_stopped, again = "ended by SIGTERM", "a second one: at once"
        self.session.interrupted.set()
        self.ctx.say(f"stopping at the next step, with a checkpoint ({again})")

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
