"""What Ray costs: images/s of two Ray Train workers against the same loop in two processes under torchrun.

    python -m tests.bench.ray_overhead [--quick] [--json]

Both run `cluster.task.run_gan` with one thread a process and the same store; what they report of themselves is read from
the runs' events, without the first part of each run. Starting up is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.common import PATIENCE, Result, Target, alternate, options, ratio, show, spread

TARGET = 0.97
WORKERS = 2
RAY, TORCHRUN = "Ray Train", "torchrun"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Setting:
    """One size of the experiment. The rate is taken after `warmup`, a share of the run."""

    kimg: float = 12.8
    warmup: float = 0.3
    rounds: int = 5
    batch: int = 64
    width: int = 48
    limit: int | None = None


def task_of(setting: Setting, store: str, workdir: Path) -> Any:
    """A run of its own: no checkpoints, no metrics, no grids but the first and the last."""
    from cluster.task import GanTask

    recipe = {
        "data": {"source": "glyphs", "resolution": 32, "limit": setting.limit},
        "model": {"arch": "dcgan", "resolution": 32, "channels": 1, "width": setting.width},
        "train": {"kimg": setting.kimg, "batch_size": setting.batch},
    }
    return GanTask(
        run=f"overhead-{uuid.uuid4().hex[:8]}",
        store=store,
        recipe=recipe,
        workdir=str(workdir),
        grid_every_kimg=1e6,
        threads=1,
        checkpoints_to_store=False,
    )


def under_torchrun(task: Any) -> None:
    """Two processes of `tests.bench.rank`. Raises with their output when one fails."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(task), file)
        file.flush()
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORKERS)]
        command = [*launcher, "-m", "tests.bench.rank", file.name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"torchrun failed:\n{done.stderr[-6000:]}")


def under_ray(task: Any) -> None:
    """A Ray of its own, gone afterwards: what its idle processes use must not slow torchrun down."""
    from cluster.ray_session import RaySession
    from cluster.sections import ResourcesSpec
    from cluster.trainer import train_on_ray

    with RaySession() as session:
        train_on_ray(session, task, ResourcesSpec(workers=WORKERS, cpus_per_worker=1))


def speed(task: Any, warmup: float) -> float:
    """Images per second of a finished run, by its own clock, after the first `warmup` of its images."""
    from cluster.runs import Runs
    from cluster.store import open_store

    events = [event for event in Runs(open_store(task.store)).events(task.run) if event["type"] == "progress"]
    last = events[-1]
    first = next(event for event in events if event["nimg"] >= warmup * last["nimg"])
    return float((last["nimg"] - first["nimg"]) / (last["seconds"] - first["seconds"]))


def measure(quick: bool = False, setting: Setting | None = None) -> Result:
    from tlgan.data import prepare
    from tlgan.recipe import DataSpec

    setting = setting or (Setting(kimg=1.28, rounds=1) if quick else Setting())
    prepare(DataSpec(source="glyphs", resolution=32, limit=setting.limit), resolution=32)
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"

        def once(how: Any) -> float:
            task = task_of(setting, store, Path(folder) / uuid.uuid4().hex)
            how(task)
            return speed(task, setting.warmup)

        runs = {TORCHRUN: partial(once, under_torchrun), RAY: partial(once, under_ray)}
        speeds = alternate(runs, setting.rounds, PATIENCE if not quick else 0)
    rows = [
        {**spread(name, values, "images/s"), "share of torchrun": ratio(values, speeds[TORCHRUN])}
        for name, values in speeds.items()
    ]
    notes = [
        "",
        f"{WORKERS} processes of one thread, global batch {setting.batch}, {setting.rounds} rounds of {setting.kimg:g} kimg",
        "Ray runs its workers at a low priority (nice 15): other work on the machine slows them down more than torchrun's.",
    ]
    target = Target(
        "ray_overhead: images/s, Ray Train against torchrun", ">=", TARGET, ratio(speeds[RAY], speeds[TORCHRUN])
    )
    return Result("ray_overhead", quick, rows, [target], notes)


if __name__ == "__main__":
    given = options(__doc__).parse_args()
    sys.exit(show(measure(given.quick), given.json))
