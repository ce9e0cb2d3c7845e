"""The results of `tests.bench.methods` as a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from tests.bench.common import Result
from tests.bench.methods import PLAIN, SCRATCH, SWEPT, Cell

INTRO = """# Transfer methods on the embedded data

Made by `python -m tests.bench.methods --targets {targets} --page tests/bench/METHODS.md`; what the lines mean stands at the head of
`methods.py`. Mean and standard deviation over the seeds; KID: lower is better, recall: higher. Methods run at their defaults,
which suit some data better than others: what a method can do on yours is a search's business (`jobs/specs/sweep-methods.yaml`).
"""


def page(result: Result, cells: list[Cell]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result.host.items() if key != "load")
    targets = list(dict.fromkeys(cell.target for cell in cells))
    parts = [INTRO.format(targets=",".join(targets)), f"{result.notes[-1]}; {facts}.\n"]
    for target in targets:
        parts.append(_section(target, [cell for cell in cells if cell.target == target]))
    return "\n".join(parts)


def _section(target: str, cells: list[Cell]) -> str:
    lines = [f"## {target}", "", "| method | from | KID | of scratch | recall |", "|---|---|---|---|---|"]
    scratch = next(cell for cell in cells if cell.method == SCRATCH)
    for cell in sorted(cells, key=lambda cell: cell.mean):
        name = f"**{cell.method}**" if cell.method in (SCRATCH, PLAIN, SWEPT) else cell.method
        share = f"{cell.mean / scratch.mean:.2f}"
        lines.append(
            f"| {name} | {cell.source or '-'} | {_spread(cell.kid, 4)} | {share} | {_spread(cell.recall, 2)} |"
        )
    return "\n".join([*lines, "", *_losers(cells, scratch), ""])


def _losers(cells: list[Cell], scratch: Cell) -> Iterable[str]:
    """Where methods lose, in words."""
    plain = {cell.source: cell for cell in cells if cell.method == PLAIN}
    rest = [cell for cell in cells if cell.method not in (SCRATCH, PLAIN, SWEPT)]
    for source, reference in plain.items():
        worse = [cell.method for cell in rest if cell.source == source and cell.mean > reference.mean]
        if worse:
            yield f"Worse than plain fine-tuning from {source}: {', '.join(worse)}."
    if lost := [f"{cell.method} from {cell.source}" for cell in cells if cell.source and cell.mean > scratch.mean]:
        yield f"Worse than scratch: {', '.join(lost)}."


def _spread(values: tuple[float, ...], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
