"""The smallest trainings that still have every part: shared by the tests of networks, transfer, resume and ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tlgan.data import Dataset
from tlgan.data.loader import Loader
from tlgan.distributed import World
from tlgan.learners.gan import GanLearner
from tlgan.models import build_pair
from tlgan.models.blocks import Network
from tlgan.recipe import ModelSpec, Recipe

WIDTH, LATENT_DIM = 4, 8
CLASSES = {"left": 20, "right": 20}


def recipe(
    *,
    model: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
    transfer: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
    flip: bool = False,
    **train: Any,
) -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"source": "glyphs", "flip": flip},
            "model": {"arch": "dcgan", "resolution": 32, "width": WIDTH, "latent_dim": LATENT_DIM, **(model or {})},
            "loss": loss or {},
            "transfer": transfer,
            "augment": augment or {},
            "train": {"kimg": 1.0, "batch_size": 4, **train},
        }
    )


def dataset(channels: int = 1, resolution: int = 32, count: int = 40, seed: int = 0, labels: bool = False) -> Dataset:
    """Bright squares on dark ground, with noise: something a discriminator can learn."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, channels, resolution, resolution), dtype=np.uint8)
    for image in images:
        top, left = rng.integers(0, resolution // 2, 2)
        image[:, top : top + resolution // 2, left : left + resolution // 2] += 180
    if labels:
        return Dataset.from_arrays(images, np.arange(count) % 2, tuple(CLASSES))
    return Dataset.from_arrays(images)


def pair(
    arch: str = "dcgan", channels: int = 1, seed: int = 0, classes: dict[str, int] | None = None, **model: Any
) -> tuple[Network, Network]:
    spec = {"arch": arch, "resolution": 32, "width": WIDTH, "latent_dim": LATENT_DIM, **model}
    return build_pair(ModelSpec.model_validate(spec), channels, seed, classes or CLASSES)


def lively(arch: str, channels: int = 1, **model: Any) -> Any:
    """A generator whose fresh weights are large enough to draw different images."""
    G, _ = pair(arch, channels, **model)
    with torch.no_grad():
        for parameter in G.parameters():
            if arch == "dcgan" and parameter.dim() == 4:
                parameter.mul_(8)
    return G.eval().requires_grad_(False)


def new_learner(
    of: Recipe, channels: int = 1, world: World | None = None, classes: dict[str, int] | None = None
) -> GanLearner:
    return GanLearner(of, *build_pair(of.model, channels, of.train.seed, classes or CLASSES), world or World())


def run_steps(learner: GanLearner, data: Dataset, count: int, first: int = 0) -> list[dict[str, float]]:
    """Steps `first .. first + count` on the batches that `tlgan.train` would take. Each step's statistics."""
    train, world = learner.recipe.train, learner.world
    flip = learner.recipe.data.flip
    loader = Loader(data, train.batch_size, seed=train.seed, flip=flip, rank=world.rank, world_size=world.size)
    rows = []
    for index in range(first, first + count):
        batches = [loader.batch(index * train.n_critic + k) for k in range(train.n_critic)]
        stats = learner.step(batches, index, (index + 1) * train.batch_size * train.n_critic)
        rows.append({name: float(value) for name, value in stats.items()})
    return rows


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not bit-equal, or are in one of the two only."""
    return [name for name in {**a, **b} if name not in a or name not in b or not torch.equal(a[name], b[name])]


def flat(state: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{owner}|{name}": tensor for owner, part in state.items() for name, tensor in part.items()}
