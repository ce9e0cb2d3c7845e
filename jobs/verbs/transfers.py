"""What a verb says while bytes go to or come from the store."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.store import ArtifactStore
from cluster.store.transfer import TransferStats
from jobs.output import Context
from jobs.verbs.words import size_text
from tlgan.manifest import Manifest


@contextmanager
def transferring(ctx: Context, store: ArtifactStore, what: str, total: int) -> Iterator[TransferStats]:
    """Counts the bytes of every transfer of `store` in the block: a bar on a terminal, one line elsewhere, silent under -q."""
    before = store.stats
    with byte_bar(ctx, what, total) as advance, store_warnings(ctx):
        store.stats = stats = _Told(advance)
        try:
            yield stats
        finally:
            store.stats = before
    ctx.detail(
        f"{size_text(stats.uploaded)} sent, {size_text(stats.reused)} there already"
        if stats.uploaded or stats.reused
        else f"{size_text(stats.downloaded)} received, the rest was in the cache"
    )


def pull_shown(
    ctx: Context, store: ArtifactStore, manifest: Manifest, dest: Path | None = None, **options: Any
) -> Path:
    """`ArtifactStore.pull`, with its `options`, and its progress."""
    once = {entry.sha256: entry.size for entry in manifest.files}
    try:
        with transferring(ctx, store, f"pulling {manifest.ref}", sum(once.values())) as stats:
            return store.pull(manifest, dest, **options)
    except KeyboardInterrupt:
        came = size_text(stats.downloaded)
        ctx.say(f"interrupted: {came} came, verified, and stay in the cache; the same command goes on from there")
        raise


class _Told(TransferStats):
    """Statistics that tell every addition."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        super().__init__()
        self._advance = advance

    def add(self, what: str, size: int) -> None:
        super().add(what, size)
        self._advance(size)


@contextmanager
def byte_bar(ctx: Context, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """`advance(bytes)`: a bar with bytes and rate on a terminal; one line elsewhere, once there are any; silent under -q."""
    if ctx.quiet or not sys.stderr.isatty():
        unsaid = iter([f"{what} ({size_text(total)}) ..."])
        yield lambda size: ctx.say(line) if (line := next(unsaid, None)) else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda size: bars.advance(task, size)


class _Sayer(logging.Handler):
    def __init__(self, ctx: Context) -> None:
        super().__init__(logging.WARNING)
        self.ctx = ctx

    def emit(self, record: logging.LogRecord) -> None:
        self.ctx.say(f"warning: {record.getMessage()}")


@contextmanager
def store_warnings(ctx: Context) -> Iterator[None]:
    """What the store warns of (single-writer servers, damaged aliases) is said like everything else: not under -q."""
    log, handler = logging.getLogger("tlgan.store"), _Sayer(ctx)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
