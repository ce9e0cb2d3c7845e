"""One rank under torchrun: `run_gan` of the task in a JSON file. Started by `tests.bench.ray_overhead`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist

from cluster.task import GanTask, run_gan
from tlgan.distributed import World

if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text())
    task["grid"], task["evaluate_at"] = tuple(task["grid"]), tuple(task["evaluate_at"])
    dist.init_process_group("gloo")
    run_gan(GanTask(**task))
    World.current("cpu").leave()
