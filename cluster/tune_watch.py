"""What Ray Tune calls: its searcher and its callback, both thin. Imports ray: load it only where Tune runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher as TuneSearcher

if TYPE_CHECKING:
    from cluster.tuner import Conductor


class Searcher(TuneSearcher):
    """Asks the conductor for turns. What goes wrong in any call is raised by the next `suggest`, which ends the search."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self.conductor = conductor
        self.trials: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        config = self._guarded(self.conductor.next)
        if self.conductor.error is not None:
            raise self.conductor.error
        if config is not None:
            self.trials[trial_id] = config["trial"]
            return config
        return TuneSearcher.FINISHED if self.conductor.over else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._guarded(self.conductor.heard, self.trials[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._guarded(self.conductor.ended, self.trials.pop(trial_id), error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a search is rebuilt from its ledger")

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _guarded(self, function: Any, *arguments: Any) -> Any:
        if self.conductor.error is not None:
            return None
        try:
            return function(*arguments)
        except Exception as error:
            self.conductor.error = error
            return None


class Watcher(tune.Callback):
    """Says when a turn has got its place. Tune pickles its callbacks into its own snapshot; a copy there is deaf."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor: Conductor | None = conductor

    def __getstate__(self) -> dict[str, Any]:
        return {"conductor": None}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.conductor and self.conductor.error is None:
            self.conductor.begun(trial.config["trial"])
