"""What the benchmarks share: facts of the host, alternating runs, targets, one way to print and one set of options."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PATIENCE = 120  # seconds to wait for an idle machine before each run of a measurement


def host() -> dict[str, Any]:
    """The machine and versions a figure belongs to, and how busy the machine was."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": version("torch"),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(frozen=True)
class Target:
    """`measured` is held against `bound`: at least (`>=`), at most (`<=`) or below (`<`)."""

    what: str
    sense: str
    bound: float
    measured: float

    @property
    def passed(self) -> bool:
        compare = {
            ">=": self.measured >= self.bound,
            "<=": self.measured <= self.bound,
            "<": self.measured < self.bound,
        }
        return compare[self.sense]


@dataclass
class Result:
    """What a benchmark found. `rows` are printed as a table, one dict a line; `notes` below it."""

    bench: str
    quick: bool
    rows: list[dict[str, Any]]
    targets: list[Target]
    notes: list[str] = field(default_factory=list)
    host: dict[str, Any] = field(default_factory=host)

    @property
    def passed(self) -> bool:
        return all(target.passed for target in self.targets)

    def to_json(self) -> dict[str, Any]:
        targets = [{**asdict(target), "passed": target.passed} for target in self.targets]
        return {**asdict(self), "targets": targets, "passed": self.passed}

    def to_text(self) -> str:
        facts = ", ".join(f"{key} {value}" for key, value in self.host.items())
        short = " (quick: a trial of the script, not a measurement)" if self.quick else ""
        return "\n".join([f"{self.bench}{short}", facts, "", table(self.rows), "", verdicts(self.targets), *self.notes])


def alternate(runs: Mapping[str, Callable[[], float]], rounds: int, patience: float = 0) -> dict[str, list[float]]:
    """`rounds` values of each run, taken in turn and in the opposite order every other round: drift hits all alike.

    Before each run, waits up to `patience` seconds for the machine to be idle.
    """
    values: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            wait_for_quiet(patience)
            values[name].append(runs[name]())
            print(f"  {name}, round {number + 1} of {rounds}: {values[name][-1]:.4g}", file=sys.stderr)
    return values


def wait_for_quiet(patience: float, busy: float = 0.1) -> bool:
    """Waits until less than a share `busy` of the processors' time is used, `patience` seconds at most. Whether it came."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if _used_share(seconds=1.0) < busy:
            return True
    return patience == 0


def _used_share(seconds: float) -> float:
    """Share of all processors' time that was not idle in the next `seconds`; 0 where the system does not say."""
    before = _ticks()
    time.sleep(seconds)
    used, total = (after - b for after, b in zip(_ticks(), before, strict=True))
    return used / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """(used, all) processor time since the machine started, in ticks."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(fields) - fields[3] - fields[4], sum(fields)  # but idle and waiting for disks


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios pair by pair."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(name: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    """A row of the table: median, least and largest."""
    return {"run": name, "median": statistics.median(values), "min": min(values), "max": max(values), "unit": unit}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys in columns; text to the left, numbers to the right."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    left = [isinstance(rows[0][head], str) for head in heads]

    def line(parts: list[str]) -> str:
        padded = (
            part.ljust(w) if is_left else part.rjust(w) for part, w, is_left in zip(parts, widths, left, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(heads), line(["-" * w for w in widths]), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def verdicts(targets: Sequence[Target]) -> str:
    return table(
        [
            {
                "target": t.what,
                "bound": f"{t.sense} {t.bound:g}",
                "measured": t.measured,
                "": "pass" if t.passed else "MISSED",
            }
            for t in targets
        ]
    )


def options(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about.strip().splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute's trial of the script instead of a measurement")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def show(result: Result, as_json: bool) -> int:
    """Prints the result. The exit code is 1 when a measurement missed its target."""
    print(json.dumps(result.to_json(), indent=1) if as_json else result.to_text())
    return 0 if result.quick or result.passed else 1


def show_all(parts: Iterable[Result], given: argparse.Namespace) -> int:
    """Prints each result as it comes, and the verdicts together at the end. The exit code as `show`."""
    results = []
    for result in parts:
        results.append(result)
        if not given.json:
            print(result.to_text(), end="\n\n", flush=True)
    if given.json:
        print(json.dumps([result.to_json() for result in results], indent=1))
    else:
        print(verdicts([target for result in results for target in result.targets]))
    return 0 if given.quick or all(result.passed for result in results) else 1
