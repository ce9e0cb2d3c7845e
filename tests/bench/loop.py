"""The one-process training loop against pytorch's classic DCGAN example loop: same networks, same first weights, same images.

    python -m tests.bench.loop [--quick] [--json] [--threads 2]

The two have processes of their own, so that neither profits from the other's settings; they run in turn, never together.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.bench.common import PATIENCE, Result, Target, alternate, options, ratio, show, spread

TARGET = 1.3
OURS, CLASSIC, PRELOADED = "tlgan", "classic example", "classic, preloaded tensor"


@dataclass(frozen=True)
class Setting:
    """One size of the experiment. `limit` cuts the dataset."""

    threads: int = 2
    steps: int = 120
    warmup: int = 20
    rounds: int = 7
    batch: int = 64
    width: int = 48
    limit: int | None = None


def recipe_of(setting: Setting) -> Any:
    from tlgan.recipe import Recipe

    return Recipe.model_validate(
        {
            "data": {"source": "glyphs", "resolution": 32, "limit": setting.limit},
            "model": {"arch": "dcgan", "resolution": 32, "channels": 1, "width": setting.width},
            "train": {"kimg": setting.steps * setting.batch / 1000, "batch_size": setting.batch},
        }
    )


def dataset_of(setting: Setting) -> Any:
    from tlgan.data import prepare

    return prepare(recipe_of(setting).data, resolution=32)


def ours(setting: Setting) -> float:
    """Images per second of `tlgan.train.train` after the warm-up, by the times at which it reports."""
    import torch

    from tlgan.train import Hooks, Schedule, train

    torch.set_num_threads(setting.threads)
    times: dict[int, float] = {}

    def report(event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            times[event["nimg"]] = time.perf_counter()

    total, first = setting.steps * setting.batch, setting.warmup * setting.batch
    schedule = Schedule(total=total, tick_every=first)
    with tempfile.TemporaryDirectory() as folder:
        train(recipe_of(setting), dataset_of(setting), schedule, Path(folder), hooks=Hooks(report=report))
    return (total - first) / (times[total] - times[first])


def classic(setting: Setting, preloaded: bool) -> float:
    """Images per second of the example's loop after the warm-up."""
    import torch

    from tests.bench import classic as example
    from tlgan.models import build_pair

    torch.set_num_threads(setting.threads)
    recipe, images = recipe_of(setting), dataset_of(setting).images
    ours = build_pair(recipe.model, images.shape[1], recipe.train.seed)
    G, D = example.networks(*ours)
    batches = (example.from_memory if preloaded else example.from_files)(images, setting.batch)
    with tempfile.TemporaryFile("w") as log:
        return example.train(
            G.train(),
            D.train(),
            batches,
            latent_dim=recipe.model.latent_dim,
            lr=recipe.train.lr_g,
            steps=setting.steps,
            warmup=setting.warmup,
            log=log,
        )


def profile(setting: Setting, steps: int = 10) -> dict[str, float]:
    """Share of the time of each kind of kernel in our step, on one thread. Sums to 1."""
    import torch
    from torch.profiler import ProfilerActivity

    from tlgan.data.loader import Loader
    from tlgan.distributed import World
    from tlgan.learners.gan import GanLearner
    from tlgan.models import build_pair

    torch.set_num_threads(1)
    recipe, dataset = recipe_of(setting), dataset_of(setting)
    learner = GanLearner(recipe, *build_pair(recipe.model, dataset.channels, recipe.train.seed), World())
    batches = Loader(dataset, setting.batch, seed=0).batches(0)

    def step(index: int) -> None:
        learner.step([next(batches)], index, (index + 1) * setting.batch)

    for index in range(3):
        step(index)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as recorded:
        for index in range(3, 3 + steps):
            step(index)
    spent: Counter[str] = Counter()
    for row in recorded.key_averages():
        spent[_kind(row.key)] += row.self_cpu_time_total
    return {kind: time_us / spent.total() for kind, time_us in spent.most_common()}


KINDS = {
    "convolution_backward": "convolutions, backward",
    "convolution": "convolutions, forward",
    "batch_norm": "batch norm",
    "relu": "activations",
    "threshold": "activations",
    "tanh": "activations",
    "adam": "Adam",
    "lerp": "moving average",
    "mm": "matrix products",
    "mv": "spectral norm",
    "norm": "spectral norm",
    "copy_": "copies",
    "cat": "copies",
}


def _kind(operation: str) -> str:
    return next((kind for part, kind in KINDS.items() if part in operation.lower()), "everything else")


def measure(quick: bool = False, setting: Setting | None = None) -> Result:
    setting = setting or (Setting(steps=16, warmup=4, rounds=2) if quick else Setting())
    loops = {
        OURS: partial(ours, setting),
        CLASSIC: partial(classic, setting, preloaded=False),
        PRELOADED: partial(classic, setting, preloaded=True),
    }
    dataset_of(setting)  # rendered before anybody is timed
    with ExitStack() as stack:
        mine, theirs = (stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) for _ in "ab")
        for ready in [mine.submit(_warm), theirs.submit(_warm)]:
            ready.result()
        homes = {OURS: mine, CLASSIC: theirs, PRELOADED: theirs}
        runs = {name: partial(_in, homes[name], loop) for name, loop in loops.items()}
        speeds = alternate(runs, setting.rounds, PATIENCE if not quick else 0)
        shares = mine.submit(profile, setting, 3 if quick else 10).result()
    rows = [
        {**spread(name, values, "images/s"), "tlgan is faster by": ratio(speeds[OURS], values)}
        for name, values in speeds.items()
    ]
    notes = ["", f"{setting.threads} threads, batch {setting.batch}, width {setting.width}, {setting.rounds} rounds"]
    notes += ["where a step of tlgan spends its time (one thread):"]
    notes += [f"  {share:6.1%}  {kind}" for kind, share in shares.items()]
    target = Target("loop: images/s against the classic example", ">=", TARGET, ratio(speeds[OURS], speeds[CLASSIC]))
    return Result("loop", quick, rows, [target], notes)


def _warm() -> None:
    import tests.bench.classic  # noqa: F401
    import tlgan.train  # noqa: F401


def _in(home: ProcessPoolExecutor, loop: Any) -> float:
    return float(home.submit(loop).result())


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    size = Setting(threads=given.threads)
    if given.quick:
        size = Setting(threads=given.threads, steps=16, warmup=4, rounds=2)
    sys.exit(show(measure(given.quick, size), given.json))
