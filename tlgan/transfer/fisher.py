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

from tlgan.data.loader import Batch
from tlgan.distributed import World
from tlgan.models.blocks import Network
from tlgan.random import latents


def fisher(
    log_likelihood: Callable[[int], Tensor], parameters: Mapping[str, Tensor], own: range, world: World
) -> dict[str, Tensor]:
    """The diagonal at `parameters`, over this rank's samples, numbered `own`, and the others'. All ranks get the whole.

    `log_likelihood(i)`: a scalar, of sample i alone. What a parameter has no part in has no information.
    """
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = world.mean(torch.tensor(float(len(own)), device=world.device)) * world.size
    for i in own:
        gradients = torch.autograd.grad(log_likelihood(i), list(parameters.values()), allow_unused=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            if gradient is not None:
                total += gradient.square()
    return {name: world.mean(total) * world.size / count for name, total in sums.items()}


def generator_fisher(G: Network, D: Network, names: set[str], count: int, seed: int, world: World) -> dict[str, Tensor]:
    """Of G's parameters `names`, for images of latents that `seed` fixes, of all classes in turn where there are any.

    In eval mode: batch statistics do not mix samples.
    """
    (G, parameters), (D, _) = _alone(G, names), _alone(D, set())
    z = latents(seed, 0, count, G.latent_dim).to(world.device)
    classes = len(G.config.get("classes", []))

    def called_real(i: int) -> Tensor:
        labels = {"labels": torch.tensor([i % classes], device=z.device)} if classes else {}
        return F.logsigmoid(D(G(z[i : i + 1], **labels), **labels)).sum()

    return fisher(called_real, parameters, range(world.rank, count, world.size), world)


def discriminator_fisher(
    G: Network, D: Network, names: set[str], batch: Batch, count: int, seed: int, world: World
) -> dict[str, Tensor]:
    """Of D's parameters `names`, for calling real images real and as many generated ones generated.

    The images are this rank's `batch`, or the first of it where `count`, over all ranks, are less.
    """
    (G, _), (D, parameters) = _alone(G, set()), _alone(D, names)
    local = min(len(batch.images), max(count // world.size, 1))
    z = latents(seed, world.rank * local, local, G.latent_dim).to(world.device)

    def told_apart(i: int) -> Tensor:
        labels = {"labels": batch.labels[i : i + 1]} if D.config.get("classes") else {}
        real, fake = D(batch.images[i : i + 1], **labels), D(G(z[i : i + 1], **labels), **labels)
        return F.logsigmoid(real).sum() + F.logsigmoid(-fake).sum()

    return fisher(told_apart, parameters, range(local), world)


def _alone(network: Network, names: set[str]) -> tuple[Network, dict[str, Tensor]]:
    """A copy in eval mode of which the parameters `names` take gradients, and these."""
    network = copy.deepcopy(network).eval()
    for name, p in network.named_parameters():
        p.requires_grad_(name in names)
    return network, {name: p for name, p in network.named_parameters() if name in names}
