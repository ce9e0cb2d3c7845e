"""What a sweep over freeze depths adds to a store, against as many whole copies of the model.

    python -m tests.bench.store_sharing [--quick] [--json]

A pair of networks as large as StyleGAN2's at 256 px is published as the base. Then ten trials of each search start from
it by the transfer method, train for a step, and leave their networks in the store as trials of `tlgan run` do. A step
changes every tensor that training changes at all; how far it goes does not matter to the bytes.

- freeze_d       D frozen from the image side, depths evenly from nothing to all but the last block
- both depths    D and G frozen, depths drawn
- methods        fine-tuned whole, with D frozen, or by scales and shifts of G alone; method and depth drawn

A whole copy is G, D and G_ema in full, as they are published. The base is in the store before the sweep and is not counted.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.common import Result, Target, options, show

TARGET = 0.6
BATCH = 2  # the least that batch statistics allow
DEPTHS, BOTH, METHODS = "freeze_d", "both depths", "methods"


@dataclass(frozen=True)
class Setting:
    """The pair and how often it is tried."""

    arch: str = "resnet"
    resolution: int = 128
    width: int = 96
    latent_dim: int = 512
    trials: int = 10


QUICK = Setting(resolution=32, width=16, latent_dim=64)


def full_size() -> Setting:
    """StyleGAN2 where there is one, or else a residual pair with as many parameters."""
    from tlgan import registry

    return Setting(arch="stylegan2", resolution=256, width=64) if "stylegan2" in registry.ARCHS else Setting()


def points(setting: Setting, blocks: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Search -> the transfer section of each trial. `blocks`: how many D and G have."""
    from cluster.search.points import sample
    from cluster.space import Space

    def drawn(**space: Any) -> list[dict[str, Any]]:
        spaces = {name: Space.model_validate(value) for name, value in space.items()}
        return sample(spaces, "random", setting.trials, seed=0)

    depth_d, depth_g = {"int": [0, blocks["D"] - 1]}, {"int": [0, blocks["G"] - 1]}
    even = [round(n * (blocks["D"] - 1) / (setting.trials - 1)) for n in range(setting.trials)]
    frozen = [{"method": "freeze"} | point for point in drawn(freeze_d=depth_d, freeze_g=depth_g)]
    return {
        DEPTHS: [{"method": "freeze", "freeze_d": depth} for depth in even],
        BOTH: frozen,
        METHODS: drawn(method={"choice": ["finetune", "freeze", "scale_shift"]}, freeze_d=depth_d),
    }


class Bench:
    """One store with a base in it."""

    def __init__(self, setting: Setting, folder: Path, say: Callable[[str], None]) -> None:
        from cluster.store import ArtifactStore
        from tlgan.artifact import save_networks
        from tlgan.data import Dataset
        from tlgan.distributed import World
        from tlgan.learners.gan import GanLearner
        from tlgan.models import build_pair
        from tlgan.random import generator

        self.setting, self.folder, self.say = setting, folder, say
        self.store = ArtifactStore(str(folder / "store"))
        self.parent = folder / "base"
        of = self.recipe(None, seed=0)
        learner = GanLearner(of, *build_pair(of.model, 3, seed=0), World())
        self.blocks = {which: len(learner.networks[which].blocks) for which in ("G", "D")}
        self.parameters = {w: sum(p.numel() for p in learner.networks[w].parameters()) for w in ("G", "D")}
        save_networks(self.parent, learner.networks, type="gan")
        self.whole = sum(file.stat().st_size for file in self.parent.rglob("*") if file.is_file())
        self.store.push("base", self.parent, kind="gan")
        import torch

        side = setting.resolution
        images = torch.randint(0, 256, (8, 3, side, side), generator=generator(0, "images"), dtype=torch.uint8)
        self.data = Dataset.from_arrays(images.numpy())

    def recipe(self, transfer: dict[str, Any] | None, seed: int) -> Any:
        from tlgan.recipe import Recipe

        model = {name: getattr(self.setting, name) for name in ("arch", "resolution", "width", "latent_dim")}
        fields = {
            "data": {"source": "glyphs"},
            "model": model,
            "train": {"kimg": 1.0, "batch_size": BATCH, "seed": seed},
        }
        return Recipe.model_validate(fields | ({"transfer": transfer} if transfer else {}))

    def trial(self, transfer: dict[str, Any], seed: int) -> None:
        """One step from the base; the networks go where a trial's go."""
        from cluster.task import used_again
        from tlgan.artifact import save_networks
        from tlgan.data.loader import Loader
        from tlgan.distributed import World
        from tlgan.learners.gan import GanLearner
        from tlgan.transfer import start_from

        of = self.recipe(transfer, seed)
        start = start_from(self.parent, of, 3)
        learner = GanLearner(of, start.G, start.D, World(), start.G_ema)
        learner.step([Loader(self.data, BATCH, seed=seed).batch(0)], 0, BATCH)
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            save_networks(Path(made), used_again(learner.networks), type="gan")
            self.store.stage(Path(made), pin=f"trial-{seed}")

    def sweep(self, name: str, trials: list[dict[str, Any]]) -> int:
        """Bytes that the trials of a search add to the store."""
        before = self.stored()
        for number, transfer in enumerate(trials):
            self.trial(transfer, seed=1000 * len(name) + number)
            self.say(f"  {name}, trial {number + 1} of {len(trials)}: {transfer}")
        return self.stored() - before

    def stored(self) -> int:
        return sum(info.size for info in self.store.store.list("blobs/"))

    def forget(self) -> None:
        """Makes room: what the trials left is not needed any more."""
        kept = {f"blobs/{entry.sha256[:2]}/{entry.sha256}" for entry in self.store.resolve("base:latest").files}
        for info in list(self.store.store.list("blobs/")):
            if info.key not in kept:
                self.store.store.delete(info.key)


def measure(quick: bool = False, setting: Setting | None = None) -> Result:
    setting = setting or (QUICK if quick else full_size())
    rows, targets = [], []
    with tempfile.TemporaryDirectory(prefix="tlgan-bench-") as folder:
        bench = Bench(setting, Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
        for name, trials in points(setting, bench.blocks).items():
            added, copies = bench.sweep(name, trials), len(trials) * bench.whole
            bench.forget()
            rows.append(_row(name, len(trials), added, copies, bench.whole))
            targets.append(
                Target(f"store: bytes of a sweep over {name} against whole copies", "<=", TARGET, added / copies)
            )
    size = ", ".join(f"{which} {count / 1e6:.1f} M" for which, count in bench.parameters.items())
    notes = [
        "",
        f"{setting.arch} at {setting.resolution} px: {size} parameters; a whole copy is {bench.whole / 1e6:.0f} MB",
    ]
    return Result("store_sharing", quick, rows, targets, notes)


def _row(name: str, trials: int, added: int, copies: int, whole: int) -> dict[str, Any]:
    return {
        "search over": name,
        "trials": trials,
        "added MB": added / 1e6,
        "whole copies MB": copies / 1e6,
        "share": added / copies,
        "share with the base": (added + whole) / copies,
    }


if __name__ == "__main__":
    given = options(__doc__).parse_args()
    sys.exit(show(measure(given.quick), given.json))
