"""The update does not depend on the number of workers: two processes over gloo against one, at the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rank import STEPS, measured, train
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_gan import CLASSES, differing, flat, pair, recipe

from tlgan.artifact import save_networks
from tlgan.distributed import World
from tlgan.models import build_pair
from tlgan.recipe import Recipe
from tlgan.transfer import start_from

RANKS = 2
CASES: dict[str, dict[str, Any]] = {
    "dcgan, lazy r1, flips": {"loss": {"r1": 0.5, "r1_interval": 3}, "flip": True},
    "resnet, hinge, diffaugment": {
        "model": {"arch": "resnet"},
        "loss": {"name": "hinge"},
        "augment": {"name": "diffaugment"},
    },
    "wasserstein, gp, n_critic": {
        "model": {"spectral_norm": False},
        "loss": {"name": "wasserstein", "gp": 10.0},
        "n_critic": 3,
    },
    "freeze": {"transfer": {"method": "freeze", "freeze_d": 1, "freeze_g": 2}, "loss": {"r1": 0.5, "r1_interval": 2}},
    "bf16": {"precision": "bf16", "loss": {"r1": 0.5, "r1_interval": 3}},
    "stylegan2, path lengths": {
        "model": {"arch": "stylegan2", "mapping_layers": 2, "max_width": 16},
        "loss": {"r1": 0.5, "r1_interval": 3, "path_length": 2.0, "path_length_interval": 2},
    },
    "ada, r1 through it": {
        "augment": {"name": "ada", "p": 0.5, "speed_kimg": 0.2},
        "loss": {"r1": 0.5, "r1_interval": 2},
    },
    "resnet, conditional": {"model": {"arch": "resnet", "conditional": True}, "loss": {"r1": 0.5, "r1_interval": 2}},
    "r3gan, relativistic, apa": {
        "model": {"arch": "r3gan", "max_width": 16, "depth": 1},
        "loss": {"name": "relativistic", "r1": 0.5, "r1_interval": 2, "r2": 0.5, "r2_interval": 2},
        "augment": {"name": "apa", "p": 0.4, "speed_kimg": 0.2},
    },
    "scale_shift": {"transfer": {"method": "scale_shift", "freeze_d": 3}},
    "ewc, lecam": {"transfer": {"method": "ewc", "fisher_samples": 7}, "loss": {"lecam": 0.3}},
    "feature_matching": {"transfer": {"method": "feature_matching"}},
    "cdc": {"transfer": {"method": "cdc", "weight": 10.0}},  # a thousand would make a thousand of rounding too
    "minegan": {"transfer": {"method": "minegan", "miner_kimg": 0.032}},
    "kernel_modulation": {"transfer": {"method": "kernel_modulation", "probe_kimg": 0.032, "fisher_samples": 7}},
}

FURTHER = ("resnet, hinge, diffaugment", "resnet, conditional", "scale_shift", "minegan", "kernel_modulation")
if not os.environ.get("TLGAN_LONG_TESTS"):
    CASES = {name: case for name, case in CASES.items() if name not in FURTHER}


def recipes() -> dict[str, Recipe]:
    return {name: recipe(batch_size=8, lr_g=1e-4, lr_d=1e-4, **case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parent")
    G, D = pair(seed=1)
    save_networks(path, {"G_ema": G, "D": D}, type="gan")
    return path


@pytest.fixture(scope="module")
def both_ranks(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left their states of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = [
        {"recipe": of.model_dump(mode="json"), "parent": str(parent) if of.transfer else None}
        for of in recipes().values()
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(folder / "cases.json"), str(folder)]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    workers = [
        subprocess.Popen(command, env={**common, "RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE)
        for r in range(RANKS)
    ]
    try:
        errors = [worker.communicate(timeout=240)[1].decode() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * RANKS, "\n".join(errors)
    return folder


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_take_the_steps_of_one(case: str, both_ranks: Path, parent: Path) -> None:
    number = list(CASES).index(case)
    of = recipes()[case]
    learner, stats = train(of, parent if of.transfer else None, World())
    alone = flat(learner.state_dict())
    together = load_file(both_ranks / f"{number}-0.safetensors")
    assert together.keys() == alone.keys()
    before = flat(networks_before(of, parent))
    # where a warp samples is rounded by its margin, which is as large as the rank's images need
    little = 0.3 if of.train.precision == "bf16" else 0.03 if of.augment.name == "ada" else 0.01
    far = {}
    for name, value in alone.items():
        off = (together[name].double() - value.double()).norm().item()
        way = (value.double() - before[name].double()).norm().item() if name in before else value.double().norm().item()
        allowed = little / 10 if "running_" in name else little
        # rounding, and what Adam makes of it where a gradient is next to nothing: little against the way that was gone
        if off > 1e-5 * value.double().norm().item() + allowed * way + 1e-7:
            far[name] = (off, way)
    assert far == {}
    with safe_open(both_ranks / f"{number}-0.safetensors", "pt") as file:
        assert json.loads(file.metadata()["stats"]) == pytest.approx(stats, rel=little / 10, abs=little / 1000)


def networks_before(of: Recipe, parent: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The networks before the first step."""
    if of.transfer is None:
        G, D = build_pair(of.model, 1, of.train.seed, CLASSES)
        return {"G": G.state_dict(), "D": D.state_dict(), "G_ema": G.state_dict()}
    start = start_from(parent, of, 1)
    return {"G": start.G.state_dict(), "D": start.D.state_dict(), "G_ema": start.G_ema.state_dict()}


@pytest.mark.parametrize("case", list(CASES))
def test_ranks_are_equal_to_the_bit(case: str, both_ranks: Path) -> None:
    number = list(CASES).index(case)
    first, second = (load_file(both_ranks / f"{number}-{rank}.safetensors") for rank in range(RANKS))
    assert differing(first, second) == []
    assert STEPS == 10
    steps = {int(value) for name, value in first.items() if name.startswith("opt_G") and name.endswith("/step")}
    assert steps == {"minegan": {6, STEPS}, "kernel_modulation": {6}}.get(case, {STEPS})


@pytest.mark.parametrize("rank", range(RANKS))
def test_collectives(rank: int, both_ranks: Path) -> None:
    answers = json.loads((both_ranks / f"answers-{rank}.json").read_text())
    assert answers["collectives"] == {
        "agree": [True, False],
        "mean": {"rank": 0.5, "ten": 10.0},
        "rows": [[0.0, 10.0], [1.0, 10.0]],
        "slice": [[0, 1, 2], [3, 4, 5]][rank],
    }


def test_a_guard_ends_all_ranks_with_the_same_words(both_ranks: Path) -> None:
    answers = [json.loads((both_ranks / f"answers-{rank}.json").read_text())["guarded"] for rank in range(RANKS)]
    reason = "stopped by a guard: recall is 0.01 at 0.016 kimg, the guard asks for recall >= 0.1"
    assert answers == [[reason, ["grid", "guard"]], [reason, []]]


def test_two_processes_measure_what_one_does_to_the_bit(both_ranks: Path, tmp_path: Path) -> None:
    answers = [json.loads((both_ranks / f"answers-{rank}.json").read_text())["measured"] for rank in range(RANKS)]
    assert answers == [measured(tmp_path, World()), []]


@pytest.mark.parametrize("rank", range(RANKS))
def test_ranks_go_on_from_the_newest_checkpoint_that_all_have(rank: int, both_ranks: Path) -> None:
    answers = json.loads((both_ranks / f"answers-{rank}.json").read_text())["unlike"]
    assert "share no checkpoint in" in answers["error"]
    assert "the newest are at 16, 0 images; every node needs the newest checkpoint" in answers["error"]
    assert answers["resumed"] == ([8] if rank == 0 else [])  # rank 0 tells
    assert answers["same"]  # as without an interruption


def test_alone_every_collective_is_the_identity() -> None:
    world, rows = World(), torch.arange(4.0)
    assert world.is_main
    assert world.mean_over_ranks({"a": rows.mean()}) == {"a": 1.5}
    assert world.mean_over_ranks({}) == {}
    assert [part.tolist() for part in world.gather_rows(rows)] == [rows.tolist()]
    assert world.slice(rows).tolist() == rows.tolist()
    assert (world.agree(True), world.agree(False)) == (True, False)
    world.barrier()


ONE_STEP = """
import sys, tempfile, torch
import torch.distributed as dist
from tlgan.distributed import Parallel

with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    network = Parallel(torch.nn.Linear(3, 2), gradient_as_bucket_view=True)
    with network.no_sync():
        network(torch.ones(4, 3)).sum().backward()
    network(torch.ones(4, 3)).sum().backward()
    dist.destroy_process_group()
assert network.module.weight.grad.tolist() == [[8.0] * 3] * 2
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""


def test_ranks_do_not_import_torchs_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", ONE_STEP], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.minutes
def test_the_answer_that_they_get_is_the_default() -> None:
    from torch._dynamo.utils import get_optimize_ddp_mode

    assert get_optimize_ddp_mode() == "ddp_optimizer"
