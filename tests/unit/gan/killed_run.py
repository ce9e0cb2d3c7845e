"""A training that is killed with SIGKILL after its n-th checkpoint: `python killed_run.py RECIPE.json DIR TOTAL EVERY AFTER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tiny_gan import dataset

from tlgan.distributed import World
from tlgan.recipe import Recipe
from tlgan.train import Hooks, Schedule, train


def main(recipe: str, where: str, total: str, every: str, after: str) -> None:
    def report(event: dict) -> None:
        # between two checkpoints: the steps since the last one are lost
        if event["type"] == "progress" and event["nimg"] > int(after):
            os.kill(os.getpid(), signal.SIGKILL)

    schedule = Schedule(total=int(total), checkpoint_every=int(every), tick_every=4)
    of = Recipe.model_validate_json(Path(recipe).read_text())
    train(of, dataset(), schedule, Path(where), world=World(), hooks=Hooks(report=report))


if __name__ == "__main__":
    main(*sys.argv[1:])
