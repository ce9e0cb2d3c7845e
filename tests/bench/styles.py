"""A step of StyleGAN2 by the learner against the same step written out by hand: what all the seams of the learner cost.

    python -m tests.bench.styles [--quick] [--json] [--threads 2]

Both have the same networks, losses and lazy terms, make generated images once and show D both halves in one pass. By hand
there are no transfer methods, no augmentations, no ranks, no statistics, and random numbers come from the global generator.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.common import PATIENCE, Result, Target, alternate, options, ratio, show, spread

TARGET = 0.9
OURS, BY_HAND = "tlgan", "written by hand"
R1_EVERY, PATH_EVERY = 16, 4


@dataclass(frozen=True)
class Setting:
    """One size of the experiment. Steps are a multiple of 16, so that every run has equally many lazy terms."""

    threads: int = 2
    steps: int = 16
    rounds: int = 7
    batch: int = 32
    width: int = 24
    max_width: int = 96


def recipe_of(setting: Setting) -> Any:
    from tlgan.recipe import Recipe

    model = {"arch": "stylegan2", "resolution": 32, "channels": 1, "latent_dim": setting.max_width, "mapping_layers": 2}
    loss = {"name": "nonsaturating", "r1": 0.1, "r1_interval": R1_EVERY, "path_length": 2.0}
    return Recipe.model_validate(
        {
            "data": {"source": "glyphs", "resolution": 32},
            "model": {**model, "width": setting.width, "max_width": setting.max_width},
            "loss": {**loss, "path_length_interval": PATH_EVERY},
            "train": {"kimg": 1.0, "batch_size": setting.batch, "lr_g": 2e-3, "lr_d": 2e-3, "beta1": 0.0},
        }
    )


def ours(setting: Setting) -> Callable[[int], None]:
    """A step, given its number."""
    import torch

    from tlgan.data.loader import Batch
    from tlgan.distributed import World
    from tlgan.learners.gan import GanLearner
    from tlgan.models import build_pair

    recipe = recipe_of(setting)
    learner = GanLearner(recipe, *build_pair(recipe.model, 1, 0), World())
    none = torch.full((setting.batch,), -1)
    batch = Batch(torch.rand(setting.batch, 1, 32, 32) * 2 - 1, none, none)
    return lambda index: learner.step([batch], index, (index + 1) * setting.batch) and None


class ByHand:
    """The step as somebody would write it who needs this one training only."""

    def __init__(self, setting: Setting) -> None:
        import copy

        import torch

        from tlgan.models import build_pair

        self.G, self.D = build_pair(recipe_of(setting).model, 1, 0)
        self.average = copy.deepcopy(self.G).requires_grad_(False)
        self.opt_G, self.opt_D = (
            torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.0, 0.99), fused=True) for net in (self.G, self.D)
        )
        self.real = torch.rand(setting.batch, 1, 32, 32) * 2 - 1
        self.mean_length = torch.zeros(())

    def __call__(self, index: int) -> None:
        import torch
        import torch.nn.functional as F

        count = len(self.real)
        z, mixed = torch.randn(2, count, self.G.latent_dim)
        cut = torch.randint(1, self.G.style_count, (count,))
        cut = torch.where(torch.rand(count) < 0.9, cut, self.G.style_count)
        noise = [torch.randn(count, 1, *size) for size in self.G.noise_sizes]
        fake = self.G(z, mixed=mixed, cut=cut, noise=noise)
        real_logits, fake_logits = self.D(torch.cat([self.real, fake.detach()]), parts=2).chunk(2)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        if index % R1_EVERY == 0:
            loss = loss + self.r1()
        self.descend(self.opt_D, loss)
        self.D.requires_grad_(False)
        loss = F.softplus(-self.D(fake)).mean()
        self.D.requires_grad_(True)
        if index % PATH_EVERY == 0:
            loss = loss + self.path_length(z[::2], [plane[::2] for plane in noise])
        self.descend(self.opt_G, loss)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.G.parameters()), 0.001)

    def r1(self) -> Any:
        import torch

        x = self.real.clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(self.D(x).sum(), x, create_graph=True)
        return grad.square().sum((1, 2, 3)).mean() * (0.1 / 2 * R1_EVERY)

    def path_length(self, z: Any, noise: list[Any]) -> Any:
        import torch

        styles = self.G.styles(z)
        images = self.G.synthesise(styles, noise)
        y = torch.randn_like(images) / math.sqrt(32 * 32)
        (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        self.mean_length = self.mean_length.lerp(lengths.mean().detach(), 0.01)
        return (lengths - self.mean_length).square().mean() * (2.0 * PATH_EVERY)

    @staticmethod
    def descend(optimiser: Any, loss: Any) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def speed(step: Callable[[int], None], setting: Setting) -> float:
    """Images per second over a run of `setting.steps`."""
    start = time.perf_counter()
    for index in range(setting.steps):
        step(index)
    return setting.steps * setting.batch / (time.perf_counter() - start)


def measure(quick: bool = False, setting: Setting | None = None) -> Result:
    import torch

    setting = setting or (Setting(steps=4, rounds=2, batch=8) if quick else Setting())
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        steps = {OURS: ours(setting), BY_HAND: ByHand(setting)}
        for step in steps.values():
            step(0)  # warms up
        runs = {name: partial(speed, step, setting) for name, step in steps.items()}
        speeds = alternate(runs, setting.rounds, 0 if quick else PATIENCE)
    finally:
        torch.set_num_threads(threads)
    rows = [{**spread(name, values, "images/s")} for name, values in speeds.items()]
    target = Target("styles: images/s against a loop by hand", ">=", TARGET, ratio(speeds[OURS], speeds[BY_HAND]))
    notes = ["", f"{setting.threads} threads, batch {setting.batch}, width {setting.width}, {setting.rounds} rounds"]
    return Result("styles", quick, rows, [target], notes)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    size = Setting(threads=given.threads)
    if given.quick:
        size = Setting(threads=given.threads, steps=4, rounds=2, batch=8)
    sys.exit(show(measure(given.quick, size), given.json))
