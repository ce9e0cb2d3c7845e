"""Twenty steps of a training, in a process of its own: how long a step takes and how much memory a worker needs.

`python -m jobs.probe < task.json` prints `{"step_seconds", "begin_seconds", "measure_seconds", "memory_bytes", ...}`. Nothing
is written to the store.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM_UP, STEPS = 5, 20
SAMPLES = 256
"""Images of the measurement that is timed; one of the recipe's own size is taken to be in proportion."""


def main() -> int:
    """Reads the task from stdin, writes the figures to stdout."""
    json.dump(probe(json.load(sys.stdin)), sys.stdout)
    return 0


def probe(told: dict[str, Any]) -> dict[str, Any]:
    """`told`: the fields of a `GanTask`, whose recipe has the batch size of one worker, and `measured`, whether to time that."""
    begun = time.monotonic()
    import torch

    from cluster.inputs import sample_of
    from cluster.store import ArtifactStore
    from cluster.task import GanTask, evaluator_of
    from tlgan.distributed import World
    from tlgan.recipe import Recipe
    from tlgan.train import Hooks, Schedule, train

    measured = told.pop("measured")
    task = GanTask(**told)
    torch.set_num_threads(task.threads or 1)
    recipe = Recipe.model_validate(task.recipe)
    artifacts = ArtifactStore(task.open_store())
    world = World.current(task.device)
    samples = min(SAMPLES, recipe.evaluation.samples)
    short = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"samples": samples})})
    clock = _Clock()
    per_step = recipe.train.batch_size * recipe.train.n_critic
    with tempfile.TemporaryDirectory(prefix="tlgan-probe-") as folder:
        train(
            short,
            sample_of(recipe, artifacts),
            Schedule(total=(WARM_UP + STEPS) * per_step, tick_every=per_step),
            Path(folder),
            parent=artifacts.pull(task.parent) if task.parent else None,
            evaluator=clock.timed(evaluator_of(task, short, artifacts)) if measured else None,
            world=world,
            hooks=Hooks(report=clock.heard),
        )
    on_gpu = torch.cuda.is_available() and world.device.type == "cuda"
    return {
        "step_seconds": (clock.ticks[-1] - clock.ticks[WARM_UP - 1]) / (len(clock.ticks) - WARM_UP),
        "steps": len(clock.ticks) - WARM_UP,
        "begin_seconds": clock.ticks[0] - begun,
        "measure_seconds": clock.measure_seconds * recipe.evaluation.samples / samples,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "gpu_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
    }


class _Clock:
    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.measure_seconds = 0.0

    def heard(self, event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            self.ticks.append(time.monotonic())

    def timed(self, evaluator: Any) -> Any:
        """The second of two measurements counts: the first loads the extractor and looks at the reference."""

        def evaluate(*arguments: Any) -> Any:
            evaluator(*arguments)
            begun = time.monotonic()
            values = evaluator(*arguments)
            self.measure_seconds = time.monotonic() - begun
            return values

        return evaluate


if __name__ == "__main__":
    sys.exit(main())
