"""A crash at every store call of every operation: nothing is lost, nothing partial is seen, and doing it again ends well.

fails    the call raises, the process goes on           dies     the process is gone, in the same interpreter
killed   a child process, SIGKILL                       each before the call took effect and after it
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.breaking import Breaking, Crash, quick_folder, without_fsync
from tests.faults.operations import OPERATIONS, Operation, Seen, World, clean, look
from tlgan.errors import Conflict, NotFound, TlganError

ROOT = Path(__file__).parents[2]
MOST = 200


@dataclass
class Row:
    """What came of crashing one operation: `lost` acknowledged versions or aliases, `stuck`: did not end well."""

    operation: str
    how: str
    calls: int = 0
    crashes: int = 0
    lost: int = 0
    partials: int = 0
    stuck: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "problems"}


Run = Callable[[Operation, World, int, bool], str]
"""Does an operation with a crash at a call, before or after it; "done" (no such call), "ok", "error" or "dead"."""


def in_process(how: str) -> Run:
    def run(operation: Operation, world: World, at: int, after: bool) -> str:
        breaking, end = Breaking(world.store, at, after=after, how=how), "ok"
        try:
            operation.act(world, breaking)
        except Crash:
            end = "dead"
        except TlganError:
            end = "error"
        return end if breaking.broke else "done"

    return run


@contextmanager
def children() -> Iterator[Run]:
    """Runs each operation in a child of a small process of its own, which ends itself at the call."""
    command = [sys.executable, "-m", "tests.faults.crashes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdin
        assert server.stdout

        def run(operation: Operation, world: World, at: int, after: bool) -> str:
            job = {"operation": operation.name, "root": str(world.root), "at": at, "after": after}
            print(json.dumps(job), file=server.stdin, flush=True)
            return str(json.loads(server.stdout.readline())["end"])  # type: ignore[union-attr]

        yield run
        server.stdin.close()


def crash_everywhere(operation: Operation, how: str, run: Run, folder: Path, step: int = 1) -> Row:
    """At every `step`-th call. `folder`: an empty directory for the many copies of the start state."""
    row = Row(operation.name, how)
    with without_fsync():
        start = World(folder / "start")
        start.start()
        before = look(start)
        whole = _copy(start, folder / "whole")
        operation.act(whole, whole.store)
        after_it = look(whole)
        left = clean(whole, operation.cleaning)
        cleaned = look(whole)
        for after in (False, True):
            for at in range(0, MOST, step):
                world = _copy(start, folder / "crashed")
                end = run(operation, world, at, after)
                if end == "done":
                    row.calls = at
                    break
                row.crashes += 1
                _judge(row, operation, world, (before, after_it), end)
                _again(row, operation, world, (after_it, cleaned), left)
            else:
                raise AssertionError(f"{operation.name} did not end within {MOST} calls")
    return row


def _judge(row: Row, operation: Operation, world: World, states: tuple[Seen, Seen], end: str) -> None:
    """What is seen lies between the states before and after."""
    (before, whole), seen = states, look(world)
    row.partials += len(seen.partial)
    lost = [str(content) for content in (before.live & whole.live) - seen.live]
    lost += [str(content) for content in seen.live - (before.live | whole.live)]
    for alias in before.aliases.keys() | whole.aliases.keys() | seen.aliases.keys():
        if seen.aliases.get(alias) not in (before.aliases.get(alias), whole.aliases.get(alias)):
            lost.append(alias)
    if end == "ok" and not _same(seen, whole):
        lost.append("what was acknowledged")
    row.lost += len(lost)
    row.problems += [f"{world.root}: {what}" for what in [*seen.partial, *lost]]


def _again(row: Row, operation: Operation, world: World, states: tuple[Seen, Seen], left: dict[str, int]) -> None:
    """Done once more and cleaned up, it is as if nothing had happened."""
    whole, cleaned = states
    try:
        with suppress(NotFound, Conflict):  # it was done already; the state says whether that is so
            operation.act(world, world.store)
        seen = look(world)
        found = clean(world, operation.cleaning)
        if not _same(seen, whole) or found != left or look(world) != cleaned:
            raise AssertionError(f"ended as {seen} with {found}, not as {whole} with {left}")
    except (TlganError, AssertionError) as error:
        row.stuck += 1
        row.problems.append(f"{operation.name}, {row.how}, crash {row.crashes}: {error}")


def _same(one: Seen, other: Seen) -> bool:
    mine, theirs = ((s.live, s.aliases, s.partial, s.pulled) for s in (one, other))
    return mine == theirs


def _copy(start: World, folder: Path) -> World:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start.root, folder)
    return World(folder)


def rows(step: int = 1, operations: Sequence[Operation] = OPERATIONS) -> Iterator[Row]:
    """All operations, all ways to crash."""
    with children() as killed:
        ways = {"fails": in_process("fails"), "dies": in_process("dies"), "killed": killed}
        for operation in operations:
            for how, run in ways.items():
                with quick_folder() as folder:
                    yield crash_everywhere(operation, how, run, folder, step)


def _child(job: dict[str, Any]) -> None:
    operation = next(known for known in OPERATIONS if known.name == job["operation"])
    world = World(Path(job["root"]))
    breaking = Breaking(world.store, job["at"], after=job["after"], how="killed")
    operation.act(world, breaking)


def serve() -> None:
    """Forks for every line of the input: quicker than starting Python every time."""
    with without_fsync():
        for line in sys.stdin:
            child = os.fork()
            if not child:
                try:
                    _child(json.loads(line))
                    os._exit(0)
                except TlganError:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            end = {0: "done", -9: "dead"}.get(os.waitstatus_to_exitcode(status), "error")
            print(json.dumps({"end": end}), flush=True)


if __name__ == "__main__":
    serve()
