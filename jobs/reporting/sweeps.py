"""A sweep's leaderboard with pictures, its axes as the spec's search space has them."""

from __future__ import annotations

from typing import Any, Literal, cast

from cluster.runs import RunRecord
from cluster.sections import EarlyStopSpec, ObjectiveSpec, SearchSpec
from jobs.reporting.reader import Reader
from jobs.reporting.training import stopped_early
from tlgan.report import Axis, SweepSection, TrialRow
from tlgan.report.importance import importance

MAX_THUMBNAILS = 60
Row = dict[str, Any]
ALGORITHMS = {
    "random": "Points drawn at random",
    "grid": "A walk over the grid",
    "tpe": "Points suggested by TPE after random ones",
    "pbt": "Population based training: the last trials take over the first ones' weights",
}
SCALES: dict[str, Literal["linear", "log", "category"]] = {
    "int": "linear",
    "uniform": "linear",
    "log_uniform": "log",
    "choice": "category",
}


def board_of(reader: Reader, sweep: RunRecord) -> list[Row]:
    """The rows of the leaderboard, best first; before there is one, the trials as they were announced."""
    board: list[Row] | None = reader.runs.get_json(sweep.id, "leaderboard.json")
    if board:
        return board
    return list({e["trial"]: e for e in reader.events(sweep.id) if e["type"] == "trial"}.values())


def winner_of(reader: Reader, sweep: RunRecord) -> Row | None:
    """The trial that was published; before the end, the best so far."""
    board = board_of(reader, sweep)
    published = next((row for row in board if row["trial"] == sweep.facts.get("winner")), None)
    return published or next((row for row in board if row["objective"] is not None and row["state"] != "failed"), None)


def sweep_section(reader: Reader, sweep: RunRecord) -> SweepSection:
    board = board_of(reader, sweep)
    objective = ObjectiveSpec.model_validate(sweep.spec.get("objective", {}))
    keys = [f"runs/{sweep.id}/trials/{row['trial']}/grid.png" for row in board[:MAX_THUMBNAILS]]
    pictures = [*reader.objects(keys), *[None] * len(board)]
    winner = sweep.facts.get("winner")
    return SweepSection(
        name=sweep.name,
        objective=objective.metric,
        mode=cast("Literal['min', 'max']", objective.direction),
        rows=tuple(_row(row, png) for row, png in zip(board, pictures, strict=False)),
        axes=axes_of(sweep.spec.get("space", {}), board),
        published=winner if isinstance(winner, str) else None,
        note=_note(sweep, board),
        importance=tuple(importance([row["params"] for row in board], [row["objective"] for row in board]).items()),
    )


def _row(row: Row, png: bytes | None) -> TrialRow:
    early = stopped_early(row)
    return TrialRow(
        trial=row["trial"],
        state=row["state"],
        objective=row["objective"],
        nimg=row["nimg"] or None,
        params=row["params"],
        final=row.get("final"),
        png=png,
        reason=None if early else row["reason"],
        stopped_early=early,
    )


def axes_of(space: dict[str, Any], board: list[Row]) -> tuple[Axis, ...]:
    """In the order of the trials' parameters, which is the spec's; the record has its keys sorted."""
    axes = []
    paths = dict.fromkeys([*(path for row in board[:1] for path in row["params"]), *space])
    for path in (path for path in paths if path in space):
        kind, values = next(iter(space[path].items()))
        axes.append(Axis(path, SCALES.get(kind, "linear"), tuple(values) if kind == "choice" else None))
    return tuple(axes)


def _note(sweep: RunRecord, board: list[Row]) -> str:
    search = SearchSpec.model_validate(sweep.spec.get("search", {}))
    early = EarlyStopSpec.model_validate(sweep.spec.get("early_stop", {"scheduler": "none"}))
    words = [f"{ALGORITHMS[search.algo]}, seed {search.seed}"]
    at = f" from {early.grace_kimg:g} kimg on" if early.grace_kimg else ""
    if early.scheduler in ("asha", "hyperband"):
        name = {"asha": "ASHA", "hyperband": "Hyperband"}[early.scheduler]
        words.append(f"the best 1/{early.eta} of the trials go on at each rung{at} ({name})")
    if early.scheduler == "median":
        words.append(f"trials worse than the median of the others' averages stop{at}")
    if budget := sweep.facts.get("budget"):
        words.append(str(budget))
    if any(row.get("final") is not None for row in board):
        words.append("the best measured again with more samples and another seed")
    return "; ".join(words) + "."
