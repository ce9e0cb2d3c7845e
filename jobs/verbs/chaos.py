"""`tlgan chaos`: does a spec survive what happens to machines, with the same result?"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import SetOption
from jobs.output import Context, table
from tlgan.errors import RunFailed, SpecError, did_you_mean

if TYPE_CHECKING:
    from jobs.chaos.experiment import Findings

KILL = "Some of worker, node, driver, head, twin. Default: worker,node,driver; for a job without workers: driver."
KEEP = "Keep both stores, the logs and the cluster's files in this new folder."


def chaos(
    ctx: Context,
    spec: Annotated[Path, typer.Argument(help="Spec file.")],
    kill: Annotated[str, typer.Option("--kill", help=KILL)] = "",
    kills: Annotated[int, typer.Option("--kills", min=1, max=100, help="How many blows fall.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of their order and moments.")] = 0,
    keep: Annotated[Path | None, typer.Option("--keep", help=KEEP)] = None,
    set: SetOption = None,
) -> None:
    """Run a spec twice here, once undisturbed and once while processes are killed at seeded moments, and compare the weights.

    Works on copies, in stores of its own; with workers, on a Ray cluster of its own with two nodes. Says for each blow how
    long it cost. Exit code 100 when a result differs by a bit, or the run did not survive.
    """
    from cluster.specfile import load_spec

    job, kinds = load_spec(spec, set or []), _kinds(kill)
    if keep is not None:
        _make(keep)
    from jobs.chaos.blows import draw
    from jobs.chaos.experiment import experiment

    place: Any = (
        nullcontext(str(keep.absolute())) if keep else tempfile.TemporaryDirectory(prefix="tlgan-chaos-", dir="/tmp")
    )
    with place as folder, _ended_in_order():
        found = experiment(job, ctx.open_store(), Path(folder), lambda which: draw(which, kills, seed), kinds, ctx.say)
    ctx.emit({"seed": seed, **found.to_json()}, lambda: _page(found))
    if not found.same:
        raise RunFailed(
            f"{spec}: a result differs from that of the undisturbed run", hint="--keep DIR keeps both stores"
        )


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """What was started here ends with this process, by SIGTERM as by Ctrl-C."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _kinds(text: str) -> list[str]:
    from jobs.chaos.blows import KINDS

    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        known = ", ".join(KINDS)
        raise SpecError(
            f"--kill: unknown kind {unknown[0]!r}; expected some of: {known}", hint=did_you_mean(unknown[0], KINDS)
        )
    return chosen


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise SpecError(f"--keep {folder}: {error.strerror}", hint="name a folder that does not exist yet") from None


def _page(found: Findings) -> str:
    rows = [
        [one.kind, f"{one.at_images / 1000:g}", one.what, "-" if one.back_after is None else f"{one.back_after:.1f}"]
        for one in found.struck.struck
    ]
    results = [
        [one.artifact, f"{one.files} files", "the same, bit for bit" if one.same else "; ".join(one.unlike[:3])]
        for one in found.verdicts
    ]
    times = f"{found.whole.seconds:.0f} s undisturbed, {found.struck.seconds:.0f} s under {len(rows)} blows"
    blows = table(rows, ["BLOW", "AT KIMG", "HIT", "SECONDS UNTIL THERE AGAIN"])
    return "\n".join([blows, table(results, ["ARTIFACT", "", "RESULT"]), times])
