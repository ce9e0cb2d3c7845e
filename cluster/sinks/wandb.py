"""Weights & Biases: offline below `.tlgan/sinks/wandb` (later `wandb sync`), or as `WANDB_MODE` says."""

from __future__ import annotations

import os
from typing import Any

from cluster.sinks import About, Event, numbers


class WandB:
    """A run of the project `tlgan`, or of `WANDB_PROJECT`. Logs in nowhere unless `WANDB_MODE` is set."""

    def __init__(self, about: About) -> None:
        import wandb

        folder = about.folder / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tlgan"),
            name=about.run,
            config=about.recipe,
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(silent=True, disable_git=True, x_disable_stats=True, console="off"),
        )
        self.run.define_metric("*", step_metric="nimg")

    def __call__(self, event: Event) -> None:
        found = dict(numbers(event))
        if found:
            self.run.log({**found, "nimg": int(event.get("nimg", 0))})

    def close(self) -> None:
        self.run.finish()
