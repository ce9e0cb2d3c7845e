"""The golden runs: twenty steps each on one CPU thread, small enough that rounding does not grow into the losses."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_gan import dataset, new_learner, recipe, run_steps

from tlgan.artifact import save_networks
from tlgan.distributed import World
from tlgan.learners.gan import GanLearner
from tlgan.transfer import start_from

STEPS = 20
FILE = Path(__file__).with_name("losses.json")
COMMON: dict[str, Any] = {"batch_size": 8, "lr_g": 1e-4, "lr_d": 1e-4}

CASES: dict[str, dict[str, Any]] = {
    "dcgan, nonsaturating, lazy r1": {"loss": {"name": "nonsaturating", "r1": 1.0, "r1_interval": 4}, "flip": True},
    "resnet, hinge": {"model": {"arch": "resnet"}, "loss": {"name": "hinge"}},
    "dcgan, wasserstein, gp, 3 critic steps": {
        "model": {"spectral_norm": False},
        "loss": {"name": "wasserstein", "gp": 10.0},
        "n_critic": 3,
    },
    "dcgan, freeze, diffaugment": {
        "transfer": {"method": "freeze", "freeze_d": 2, "freeze_g": 1},
        "augment": {"name": "diffaugment"},
    },
    "r3gan, relativistic, r1 and r2, ada": {
        "model": {"arch": "r3gan", "max_width": 16, "depth": 1},
        "loss": {"name": "relativistic", "r1": 0.5, "r1_interval": 2, "r2": 0.5, "r2_interval": 2},
        "augment": {"name": "ada", "p": 0.5, "speed_kimg": 0.5},
    },
    "resnet, scale_shift, least squares": {
        "model": {"arch": "resnet"},
        "loss": {"name": "least_squares"},
        "transfer": {"method": "scale_shift"},
    },
}


def run(case: str) -> list[dict[str, float]]:
    """Statistics of each step."""
    of = recipe(**COMMON, **CASES[case])
    if of.transfer is None:
        return run_steps(new_learner(of), dataset(), STEPS)
    parent = new_learner(recipe(**COMMON, model={"arch": of.model.arch}, seed=1))
    run_steps(parent, dataset(seed=1), 5)
    with tempfile.TemporaryDirectory() as folder:
        save_networks(Path(folder), parent.networks, type="gan")
        start = start_from(Path(folder), of, 1)
    return run_steps(GanLearner(of, start.G, start.D, World(), start.G_ema), dataset(), STEPS)
