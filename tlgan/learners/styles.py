"""What training adds to a generator with styles: two latents for some images, noise, and path length regularisation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.learners.terms import Term, View
from tlgan.models.blocks import Network
from tlgan.random import generator
from tlgan.recipe import Recipe

PATH_DECAY = 0.01
PATH_SHARE = 2


def style_inputs(G: Network, recipe: Recipe, world: World, position: int, count: int) -> dict[str, Any]:
    """Keywords for `G`'s forward, for this rank's rows of a global batch; empty for a generator without styles.

    Drawn for the global batch, so that the update does not depend on the number of workers.
    """
    if not hasattr(G, "noise_sizes"):
        return {}
    seed, total = recipe.train.seed, count * world.size

    def own(rows: Tensor) -> Tensor:
        return world.slice(rows).to(world.device)

    rng = generator(seed, "noise", position)
    inputs: dict[str, Any] = {"noise": [own(torch.randn(total, 1, *size, generator=rng)) for size in G.noise_sizes]}
    if recipe.train.style_mixing:
        rng = generator(seed, "mixing", position)
        last = G.style_count
        cut = torch.randint(1, last, (total,), generator=rng)
        whole = torch.rand(total, generator=rng) >= recipe.train.style_mixing
        inputs["cut"] = own(torch.where(whole, last, cut))
        inputs["mixed"] = own(torch.randn(total, G.latent_dim, generator=rng))
    return inputs


class PathLength(Term):
    """Karras et al. 2020: |J^T y| of the synthesis, for random images y, is kept near its running mean.

    Taken lazily on half of the batch; the mean belongs to the state of the training. It passes no gradient on (the authors' does
    for its hundredth part), so that the step does not depend on the number of workers.
    """

    name, side = "path_length", "G"

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.weight, self.interval = recipe.loss.path_length, recipe.loss.path_length_interval
        self.seed, self.world = recipe.train.seed, world
        self.mean = torch.zeros((), device=world.device)

    def __call__(self, view: View) -> Tensor:
        # the same rows, however they are spread over workers
        z, noise = view.z[::PATH_SHARE], [plane[::PATH_SHARE] for plane in view.inputs["noise"]]
        labels = view.inputs.get("labels")
        with torch.autocast(z.device.type, enabled=False):
            styles = view.G.styles(z, labels=None if labels is None else labels[::PATH_SHARE])
            images = view.G.synthesise(styles, noise)
            rng = generator(self.seed, "path length", view.step)
            total = torch.randn(len(images) * self.world.size, *images.shape[1:], generator=rng)
            y = self.world.slice(total).to(images.device) / math.sqrt(images.shape[2] * images.shape[3])
            (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        self.mean = self.mean.lerp(self.world.mean(lengths.mean()), PATH_DECAY)
        return (lengths - self.mean).square().mean() * self.weight

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean = state["mean"].to(self.world.device)


def path_length_of(recipe: Recipe, world: World) -> list[PathLength]:
    return [PathLength(recipe, world)] if recipe.loss.path_length else []
