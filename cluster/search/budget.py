"""What a search may spend: hours on the clock, of cores, of GPUs. When a bound is reached is written into the ledger, once."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.search.ledger import Ledger
from cluster.sections import BudgetSpec, ResourcesSpec

Spent = dict[str, float]
HOUR = 3600.0


class Meter:
    """Seconds spent by all attempts of a search: `wall`, and `core` and `gpu` for what its trials hold.

    What a killed attempt spent after its last entry in the ledger is not known and not counted.
    """

    def __init__(self, ledger: Ledger, resources: ResourcesSpec, clock: Callable[[], float] = time.monotonic) -> None:
        spent = [entry["spent"] for entry in ledger if "spent" in entry]
        self.before: Spent = spent[-1] if spent else {"wall": 0.0, "core": 0.0, "gpu": 0.0}
        workers = max(1, resources.workers)
        self.cores, self.gpus = workers * resources.cpus_per_worker, workers * resources.gpus_per_worker
        self.clock, self.since = clock, clock()
        self.held = 0.0
        self.turns: dict[str, float] = {}

    def begin(self, trial: str) -> None:
        self.turns[trial] = self.clock()

    def end(self, trial: str) -> None:
        if trial in self.turns:
            self.held += self.clock() - self.turns.pop(trial)

    def spent(self) -> Spent:
        now = self.clock()
        held = self.held + sum(now - since for since in self.turns.values())
        new = {"wall": now - self.since, "core": held * self.cores, "gpu": held * self.gpus}
        return {what: round(self.before[what] + seconds, 3) for what, seconds in new.items()}

    def beyond(self, budget: BudgetSpec) -> str | None:
        """The bound of `budget` that is reached, in words."""
        spent = self.spent()
        bounds = {"wall": (budget.hours, "hour"), "core": (budget.core_hours, "core-hour")}
        bounds["gpu"] = (budget.gpu_hours, "GPU-hour")
        for what, (hours, word) in bounds.items():
            if hours is not None and spent[what] >= hours * HOUR:
                return f"the budget of {hours:g} {word}{'' if hours == 1 else 's'} is used up"
        return None
