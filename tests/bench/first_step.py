"""How long until the first step: `tlgan run` on a cluster that is up, against a bare TorchTrainer script.

    python -m tests.bench.first_step [--quick] [--json]

Both are processes started from the command line that train the same DCGAN on two workers; the clock starts with the process
and stops when rank 0 has taken its first step. Both caches of data are warm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from cluster.minicluster import MiniCluster
from cluster.runs import Runs
from cluster.store import open_store
from tests.bench.common import PATIENCE, Result, Target, alternate, options, show, spread

MORE_AT_MOST = 5.0
WORKERS = 2
BARE, OURS = "bare TorchTrainer", "tlgan run"
ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def loop(config):
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel as DDP
    G = DDP(nn.Sequential(nn.ConvTranspose2d(64, 64, 4), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 8)))
    D = DDP(nn.Sequential(nn.Conv2d(1, 64, 4, 4), nn.ReLU(), nn.Conv2d(64, 1, 7)))
    optimisers = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.99)) for net in (G, D)]
    fake, real = G(torch.randn(16, 64, 1, 1)), torch.randn(16, 1, 28, 28)
    both = D(torch.cat([real, fake[..., :28, :28].detach()]))
    nn.functional.softplus(both).mean().backward()
    optimisers[1].step()
    if ray.train.get_context().get_world_rank() == 0:
        open(config["told"], "w").write(str(time.time()))

ray.init(log_to_driver=False)
trainer = TorchTrainer(loop, train_loop_config={"told": sys.argv[1]}, scaling_config=ScalingConfig(num_workers=2),
                       run_config=RunConfig(name="bare", storage_path=sys.argv[2]))
trainer.fit()
"""


def environment(cluster: MiniCluster, folder: Path) -> dict[str, str]:
    return {
        **cluster.environment,
        "RAY_ADDRESS": cluster.address,
        "TLGAN_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }


def bare(cluster: MiniCluster, folder: Path) -> float:
    told = folder / uuid.uuid4().hex
    (folder / "bare.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "bare.py"), str(told), str(folder / f"{told.name}-ray")]
    begun = time.time()
    _finish(command, environment(cluster, folder))
    return float(told.read_text()) - begun


def ours(cluster: MiniCluster, folder: Path) -> float:
    """A tick is a batch, so the first event of progress is the first step's."""
    name = f"run-{uuid.uuid4().hex[:8]}"
    spec: dict[str, Any] = {
        "kind": "pretrain",
        "name": name,
        "data": {"source": "digits"},
        "model": {"width": 16, "latent_dim": 64},
        "train": {"kimg": 0.32, "batch_size": 32, "seed": int(name[-6:], 16)},
        "resources": {"workers": WORKERS},
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))
    store = f"file://{folder}/store"
    command = [sys.executable, "-m", "jobs.cli", "run", str(folder / "spec.yaml"), "--store", store, "-q"]
    begun = time.time()
    _finish(command, environment(cluster, folder))
    runs = Runs(open_store(store))
    first = next(event for event in runs.events(runs.get(name).id) if event["type"] == "progress")
    return datetime.fromisoformat(first["time"].replace("Z", "+00:00")).timestamp() - begun


def _finish(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[1:4]} failed:\n{done.stderr[-4000:]}")


def measure(quick: bool = False) -> Result:
    rounds = 1 if quick else 5
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="tlgan-fs-", dir="/tmp") as name:
        folder = Path(name)
        with MiniCluster(folder, nodes=1, cpus=WORKERS) as cluster:
            ours(cluster, folder)  # warms the caches of data, on the node and here
            runs = {BARE: partial(bare, cluster, folder), OURS: partial(ours, cluster, folder)}
            seconds = alternate(runs, rounds, 0 if quick else PATIENCE)
    rows = [spread(what, values, "s") for what, values in seconds.items()]
    more = rows[1]["median"] - rows[0]["median"]
    target = Target("first_step: seconds more than a bare TorchTrainer", "<=", MORE_AT_MOST, more)
    return Result("first_step", quick, rows, [target])


if __name__ == "__main__":
    given = options(__doc__ or "").parse_args()
    sys.exit(show(measure(given.quick), given.json))
