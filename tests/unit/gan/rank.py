"""One rank of trainings under torchrun's variables: `python rank.py CASES.json DIR` writes `DIR/<case>-<rank>.safetensors`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_gan import dataset, differing, flat, new_learner, pair, recipe, run_steps

from cluster.gates import Gate
from tlgan import checkpoint
from tlgan import train as loop
from tlgan.distributed import World
from tlgan.errors import Collapsed, RunFailed
from tlgan.guards import Guards
from tlgan.learners.gan import GanLearner
from tlgan.metrics.measure import measure
from tlgan.metrics.pictures import Generated
from tlgan.metrics.protocol import MetricValue
from tlgan.models.blocks import Network
from tlgan.recipe import Recipe
from tlgan.transfer import start_from

STEPS = 10


def train(of: Recipe, parent: Path | None, world: World) -> tuple[GanLearner, dict[str, float]]:
    """The learner after `STEPS` steps, and its last statistics, averaged over ranks."""
    if of.transfer is None or parent is None:
        learner = new_learner(of, world=world)
    else:
        start = start_from(parent, of, 1)
        learner = GanLearner(of, start.G, start.D, world, start.G_ema)
    data = dataset(labels=of.model.conditional)
    run_steps(learner, data, STEPS - 1)
    last = run_steps(learner, data, 1, first=STEPS - 1)[0]
    return learner, world.mean_over_ranks({name: torch.tensor(value) for name, value in last.items()})


def collectives(world: World) -> dict[str, object]:
    """What each collective gives on this rank."""
    mine = torch.tensor([float(world.rank), 10.0])
    return {
        "agree": [world.agree(world.rank == 1), world.agree(False)],
        "mean": world.mean_over_ranks({"rank": mine[0], "ten": mine[1]}),
        "rows": [part.tolist() for part in world.gather_rows(mine)],
        "slice": world.slice(torch.arange(6)).tolist(),
    }


class Means:
    """Features are the means of the image's rows."""

    name, digest, protocol = "means", "means", {"extractor": "means"}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((1, 3)) / 255


def measured(into: Path, world: World) -> list[float]:
    """Metrics of 600 images, three blocks for two ranks."""
    G, D = pair(seed=2)
    fake, cache = Generated(G.eval(), 600, seed=1), into / f"cache-{world.rank}"
    names = ["fid", "kid", "recall", "adversarial"]
    values = measure(names, fake, dataset(count=300), Means(), seed=1, critic=D, world=world, cache_dir=cache)
    return [value.value for value in values]


def guarded(into: Path, world: World) -> list[object]:
    """What a training says that a guard ends on rank 0, which alone has the values."""
    events: list[dict] = []
    try:
        loop.train(
            recipe(batch_size=8),
            dataset(),
            loop.Schedule(total=32, evaluate_at=(16,)),
            into / f"guarded-{world.rank}",
            evaluator=lambda *_: [MetricValue("recall", 0.01)] if world.is_main else [],
            guards=Guards([Gate("recall", ">=", 0.1)]),
            world=world,
            hooks=loop.Hooks(report=events.append),
        )
    except Collapsed as error:
        return [str(error), [event["type"] for event in events[-2:]]]
    return ["nothing was raised"]


def unlike_checkpoints(into: Path, world: World) -> dict[str, object]:
    """Every rank has a folder of its own, and only rank 0 wrote checkpoints, at 8 and 16 images."""
    folder = into / f"unlike-{world.rank}"
    of = recipe(loss={"r1": 0.5, "r1_interval": 3})
    events: list[dict] = []

    def go_on(total: int) -> Network:
        events.clear()
        schedule, hooks = loop.Schedule(total=total, checkpoint_every=8), loop.Hooks(report=events.append)
        return loop.train(of, dataset(), schedule, folder, world=world, hooks=hooks).networks["G"]

    go_on(16)
    try:
        go_on(16)
        error = "nothing was raised"
    except RunFailed as problem:
        error = f"{problem}; {problem.hint}"
    if not world.is_main:
        older = checkpoint.path_at(into / "unlike-0" / "checkpoints", 8)
        shutil.copytree(older, checkpoint.path_at(folder / "checkpoints", 8))
    world.barrier()
    resumed = go_on(24)
    start = [event["nimg"] for event in events if event["type"] == "resumed"]
    folder = into / f"whole-{world.rank}"
    same = differing(dict(resumed.state_dict()), dict(go_on(24).state_dict())) == []
    return {"error": error, "resumed": start, "same": same}


def main(cases: str, into: str) -> None:
    dist.init_process_group("gloo")
    world = World.current("cpu")
    answers: dict[str, object] = {"collectives": collectives(world), "unlike": unlike_checkpoints(Path(into), world)}
    answers["guarded"] = guarded(Path(into), world)
    answers["measured"] = measured(Path(into), world)
    (Path(into) / f"answers-{world.rank}.json").write_text(json.dumps(answers))
    for number, case in enumerate(json.loads(Path(cases).read_text())):
        parent = Path(case["parent"]) if case["parent"] else None
        learner, stats = train(Recipe.model_validate(case["recipe"]), parent, world)
        state = {name: t.contiguous() for name, t in flat(learner.state_dict()).items()}
        dest = Path(into) / f"{number}-{world.rank}"
        save_file(state, f"{dest}.safetensors", metadata={"stats": json.dumps(stats)})
        del learner
    world.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
