"""Fisher information of parameters: how much a likelihood depends on each of them. One service for all methods that ask.

The diagonal of the empirical Fisher matrix, the mean over samples of the squared gradient of *one* sample's log likelihood
(the square of a batch's gradient would be something else). A generator has no likelihood; as in Li et al. 2020, that of
D calling the image real stands in for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tlgan.distributed import World
from tlgan.models.blocks import Network
from tlgan.random import latents


def fisher(
    log_likelihood: Callable[[int], Tensor], parameters: Mapping[str, Tensor], count: int, world: World
) -> dict[str, Tensor]:
    """The diagonal at `parameters`, over samples `0 .. count`. Ranks share the samples and all get the whole.

    `log_likelihood(i)`: a scalar, of sample i alone. What a parameter has no part in has no information.
    """
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(world.rank, count, world.size):
        gradients = torch.autograd.grad(log_likelihood(i), list(parameters.values()), allow_unused=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            if gradient is not None:
                total += gradient.square()
    return {name: world.mean(total) * (world.size / count) for name, total in sums.items()}


def generator_fisher(G: Network, D: Network, names: set[str], count: int, seed: int, world: World) -> dict[str, Tensor]:
    """Of G's parameters `names`, for images of latents that `seed` fixes, of all classes in turn where there are any.

    In eval mode: batch statistics do not mix samples.
    """
    G, D = copy.deepcopy(G).eval(), copy.deepcopy(D).eval().requires_grad_(False)
    for name, p in G.named_parameters():
        p.requires_grad_(name in names)
    z = latents(seed, 0, count, G.latent_dim).to(world.device)
    parameters = {name: p for name, p in G.named_parameters() if name in names}
    classes = len(G.config.get("classes", []))

    def called_real(i: int) -> Tensor:
        labels = {"labels": torch.tensor([i % classes], device=z.device)} if classes else {}
        return F.logsigmoid(D(G(z[i : i + 1], **labels), **labels)).sum()

    return fisher(called_real, parameters, count, world)
