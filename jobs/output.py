"""What a verb talks through: data on stdout, everything else on stderr, `--json` and `-q` obeyed in one place."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlgan.errors import SpecError, TlganError

if TYPE_CHECKING:
    from cluster.store import ArtifactStore


@dataclass(frozen=True)
class Context:
    """The options every verb has. `store` is the URL of `--store`, None when it was not given."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    yes: bool = False
    store: str | None = None

    def say(self, text: str) -> None:
        """Tells the person something, on stderr; silent under -q."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """The same, only under -v."""
        if self.verbose:
            self.say(text)

    def emit(self, data: Any, text: str | Callable[[], str] | None = None) -> None:
        """The result, on stdout: `data` as one JSON document under --json, else `text` (default: as JSON too)."""
        if self.json or text is None:
            print(to_json(data, indent=2))
        else:
            shown = text if isinstance(text, str) else text()
            if shown:
                print(shown)

    def emit_line(self, data: Any, text: str) -> None:
        """One item of a stream, written at once: a JSON object a line under --json."""
        print(to_json(data) if self.json else text, flush=True)

    def confirm(self, question: str) -> bool:
        """Asks before something that can't be undone. True under -y. Raises `SpecError` when nobody can answer."""
        if self.yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise SpecError(f"{question} Nobody is there to answer", hint="-y says yes")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def store_url(self) -> str:
        """--store, else TLGAN_STORE, the project's file, the user's file, or the directory `.tlgan/store` here."""
        from cluster.config import export_settings

        return export_settings(self.store)

    def open_store(self) -> ArtifactStore:
        """The artifact store in force. Nothing is read or written yet."""
        from cluster.store import ArtifactStore, open_store

        return ArtifactStore(open_store(self.store_url()))

    @contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """`with ctx.progress("pulling", total=bytes) as advance: advance(n)`: a bar on a terminal, else one line."""
        if self.quiet or not sys.stderr.isatty():
            self.say(f"{what} ...")
            yield lambda amount: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(what, total=total)
            yield lambda amount: bars.advance(task, amount)


def to_json(data: Any, indent: int | None = None) -> str:
    """JSON of plain values, dataclasses and pydantic models. nan and infinity become null, which JSON has."""
    return jsonlib.dumps(_plain(data), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def table(rows: list[list[str]], head: list[str]) -> str:
    """Left-aligned columns, as wide as needed, one row a line."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_error(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """Reports on stderr what ended the verb. Returns the exit code."""
    known = isinstance(error, TlganError)
    if verbose and not as_json and not known:
        traceback.print_exception(error)
    if as_json:
        fields = error.to_json() if isinstance(error, TlganError) else _internal(error).to_json()
        print(to_json({"error": fields}), file=sys.stderr)
    elif isinstance(error, SpecError) and any(p.file for p in error.problems):
        print(f"{error}\n{counted(len(error.problems), 'mistake')}", file=sys.stderr)
    else:
        shown = error if isinstance(error, TlganError) else _internal(error, verbose)
        print(f"{_red('error:')} {shown.message}", file=sys.stderr)
        if shown.hint and f"({shown.hint})" not in shown.message:
            print(f"hint: {shown.hint}", file=sys.stderr)
    return error.exit_code if isinstance(error, TlganError) else 1


def _internal(error: Exception, verbose: bool = False) -> TlganError:
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    return TlganError(message, hint=None if verbose else "run with -v for the traceback")


def counted(number: int, what: str) -> str:
    """`1 mistake`, `2 mistakes`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _red(text: str) -> str:
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[31m{text}\x1b[0m" if colour else text
