"""Ray Tune's callback that keeps the board of trials current. Imports ray: load it only where Tune runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray import tune

from cluster.job import SweepJob
from cluster.trial import Trial, ended


class Watcher(tune.Callback):
    """Tune pickles its callbacks into its own snapshot; a copy there is deaf on purpose."""

    def __init__(
        self, board: dict[str, Trial], job: SweepJob, totals: dict[str, int], tell: Callable[[Trial], None]
    ) -> None:
        self.board, self.totals, self.tell = board, totals, tell
        self.metric = job.objective.metric
        self.better = min if job.objective.direction == "min" else max

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._change(trial.config["trial"], state="running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.metric in result:
            row, value = self.board[trial.config["trial"]], float(result[self.metric])
            best = value if row.objective is None else self.better(value, row.objective)
            self._change(row.trial, state="running", nimg=int(result["nimg"]), objective=best)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row = self.board[trial.config["trial"]]
        if row.objective is not None:
            self._change(row.trial, **ended(row.nimg, self.totals[row.trial]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._change(trial.config["trial"], state="failed")

    def _change(self, name: str, **changes: Any) -> None:
        new = replace(self.board[name], **changes)
        if new != self.board[name]:
            self.board[name] = new
            self.tell(new)
