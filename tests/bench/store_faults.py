"""What the store survives: crashes at every call, random faults, damage, a crowd. Nothing acknowledged may be lost.

    python -m tests.bench.store_faults [--quick] [--json]
    python -m tests.bench.store_faults --seed N [--steps N]      one workload again, with what went wrong

No figure is a speed, so a busy machine does no harm; about ten minutes on two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.common import Result, Target, options, show
from tests.faults import crashes, crowd, damage, faulty_server, workload
from tests.faults.breaking import quick_folder

STEPS = 300
COLUMNS = ("run", "how", "times", "lost", "partial or wrong", "stuck")


def row(run: str, how: str, times: int, lost: int, wrong: int, stuck: int = 0) -> dict[str, Any]:
    return dict(zip(COLUMNS, (run, how, times, lost, wrong, stuck), strict=True))


def crash(result: Result) -> None:
    for found in crashes.rows(step=6 if result.quick else 1):
        result.rows.append(
            row(f"crash, {found.operation}", found.how, found.crashes, found.lost, found.partials, found.stuck)
        )
        _note(result, found.problems)
        _told(f"crash, {found.operation}, {found.how}: {found.crashes}")
    rows = [one for one in result.rows if one["run"].startswith("crash")]
    for what, column in (("lost", "lost"), ("seen in part", "partial or wrong"), ("not ended well", "stuck")):
        result.targets.append(Target(f"crashes: {what}", "<=", 0, sum(one[column] for one in rows)))


def faults(result: Result) -> None:
    """On a store in memory, then over HTTP with the real backend."""
    wanted = 300 if result.quick else 10_000
    _workloads(result, "faults in memory", _in_memory(wanted), wanted)
    wanted = 40 if result.quick else 400
    with _moto() as server:
        _workloads(result, "faults over HTTP", _over_http(server, wanted), wanted)


def _in_memory(wanted: int) -> Iterator[workload.Report]:
    seen = seed = 0
    while seen < wanted:
        with quick_folder() as folder:
            yield (report := workload.run(seed, STEPS, folder))
        seen, seed = seen + sum(report.faults.values()), seed + 1


def _over_http(server: Any, wanted: int) -> Iterator[workload.Report]:
    seen = seed = 0
    while seen < wanted:
        with quick_folder() as folder:
            bucket, most = server.new_bucket(), min(100, wanted - seen)
            yield (report := faulty_server.run(seed, STEPS, server.endpoint, bucket, folder, most))
        seen, seed = seen + sum(report.faults.values()), seed + 1


def _workloads(result: Result, what: str, reports: Iterable[workload.Report], wanted: int) -> None:
    seen, problems, steps = Counter[str](), 0, 0
    for report in reports:
        seen += report.faults
        steps += sum(report.steps.values())
        problems += len(report.problems)
        _note(result, [f"seed {report.seed}: {problem}" for problem in report.problems])
        _told(f"{what}: {sum(seen.values())} in {steps} steps")
    result.rows += [row(what, kind, count, problems, problems) for kind, count in sorted(seen.items())]
    result.targets.append(Target(f"{what}: injected", ">=", wanted, sum(seen.values())))
    result.targets.append(Target(f"{what}: lost or wrong", "<=", 0, problems))


def rot(result: Result) -> None:
    with quick_folder() as folder:
        report = damage.run(0, 100 if result.quick else 1000, folder)
    _note(result, report.problems)
    for place in damage.PLACES:
        ends = Counter[str]()
        for (found, _, end), count in report.counts.items():
            ends[end] += count if found == place else 0
        how = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()) if count)
        result.rows.append(row(f"damage, {place}", how, ends.total(), 0, ends[damage.MISSED]))
    result.targets.append(Target("damage: reached a user or a deletion", "<=", 0, len(report.problems)))
    _told(f"damage: {report.counts.total()}")


def together(result: Result) -> None:
    seconds = 6.0 if result.quick else 120.0
    with quick_folder() as folder:
        _crowd(result, "directory", crowd.run(f"file://{folder}/store", seconds, 1, folder))
    with _moto() as server, quick_folder() as folder:
        _crowd(result, "moto", crowd.run(f"s3://{server.new_bucket()}/store", seconds, 2, folder, server.environment))


def _crowd(result: Result, server: str, verdict: crowd.Verdict) -> None:
    how = ", ".join(f"{count} {what}" for what, count in sorted(verdict.counts.items()) if count)
    lost = verdict.acknowledged_lost
    name = f"{crowd.PROCESSES} processes, {server}"
    result.rows.append(row(name, how, verdict.counts.total(), lost, verdict.live_bytes_lost))
    result.targets += [
        Target(f"{name}: winners too many", "<=", 0, verdict.double_winners),
        Target(f"{name}: live blobs deleted", "<=", 0, verdict.live_bytes_lost),
        Target(f"{name}: all that is wrong", "<=", 0, len(verdict.problems)),
    ]
    _note(result, verdict.problems)
    _told(f"{name}: {how}")


@contextmanager
def _moto() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds it too
    import servers

    with tempfile.TemporaryDirectory() as folder, servers._moto(Path(folder), tls=False) as server:
        saved = dict(os.environ)
        os.environ.update(server.environment)
        try:
            yield server
        finally:
            os.environ.clear()
            os.environ.update(saved)


def _note(result: Result, problems: Iterable[str]) -> None:
    result.notes += list(problems)[:5]


def _told(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def measure(quick: bool = False) -> Result:
    result = Result("store_faults", quick, [], [])
    for part in (crash, faults, rot, together):
        part(result)
    return result


def replay(seed: int, steps: int) -> int:
    with quick_folder() as folder:
        report = workload.run(seed, steps, folder)
    print(f"seed {seed}: {report.steps.total()} steps, {report.faults.total()} faults", *report.problems, sep="\n")
    return 1 if report.problems else 0


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument("--seed", type=int, help="only this workload, in memory")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of --seed")
    given = parser.parse_args()
    return show(measure(given.quick), given.json) if given.seed is None else replay(given.seed, given.steps)


if __name__ == "__main__":
    sys.exit(main())
