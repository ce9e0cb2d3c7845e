"""What training adds to a generator with styles: two latents for some images, noise, and path length regularisation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tlgan.distributed import World
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
    inputs: dict[str, Any] = {
        "noise": [own(torch.randn(total, 1, side, side, generator=rng)) for side in G.noise_sizes]
    }
    if recipe.train.style_mixing:
        rng = generator(seed, "mixing", position)
        last = G.style_count
        cut = torch.randint(1, last, (total,), generator=rng)
        whole = torch.rand(total, generator=rng) >= recipe.train.style_mixing
        inputs["cut"] = own(torch.where(whole, last, cut))
        inputs["mixed"] = own(torch.randn(total, G.latent_dim, generator=rng))
    return inputs


class PathLength:
    """Karras et al. 2020: |J^T y| of the synthesis, for random images y, is kept near its running mean.

    Taken lazily on half of the batch; the mean belongs to the state of the training.
    """

    name = "path_length"

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.weight, self.interval = recipe.loss.path_length, recipe.loss.path_length_interval
        self.seed, self.world = recipe.train.seed, world
        self.mean = torch.zeros((), device=world.device)

    def due(self, index: int) -> bool:
        return self.weight > 0 and index % self.interval == 0

    def __call__(self, G: Any, z: Tensor, inputs: dict[str, Any], index: int) -> Tensor:
        noise = [
            plane[::PATH_SHARE] for plane in inputs["noise"]
        ]  # the same rows, however they are spread over workers
        with torch.autocast(z.device.type, enabled=False):
            styles = G.styles(z[::PATH_SHARE])
            images = G.synthesise(styles, noise)
            rng = generator(self.seed, "path length", index)
            total = torch.randn(len(images) * self.world.size, *images.shape[1:], generator=rng)
            y = self.world.slice(total).to(images.device) / math.sqrt(images.shape[2] * images.shape[3])
            (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        mean = torch.tensor(self.world.mean_over_ranks({"length": lengths.mean()})["length"], device=lengths.device)
        self.mean = self.mean.lerp(mean, PATH_DECAY)
        return (lengths - self.mean).square().mean() * (self.weight * self.interval)
