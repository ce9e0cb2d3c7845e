"""Gradient penalties of D, applied lazily: every `interval` D steps, times `interval` (Karras et al. 2020, StyleGAN2).

The lazy correction is made here and nowhere else. Penalties stay in fp32 whatever the precision of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tlgan import registry
from tlgan.models.blocks import channels_last
from tlgan.recipe import LossSpec

Critic = Callable[[Tensor], Tensor]


def gradients(critic: Critic, x_nchw: Tensor) -> Tensor:
    """d sum(critic(x)) / dx, differentiable once more. `[N, C, H, W]`"""
    x_nchw = channels_last(x_nchw.detach().float()).requires_grad_(True)
    with torch.autocast(x_nchw.device.type, enabled=False):
        logits = critic(x_nchw)
    (grad,) = torch.autograd.grad(logits.sum(), x_nchw, create_graph=True)
    return grad


class R1:
    """Mescheder, Geiger, Nowozin 2018: gamma/2 * E |grad D(real)|^2."""

    name = "r1"

    def __init__(self, weight: float, interval: int = 1) -> None:
        self.weight, self.interval = weight, interval

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        penalty = gradients(critic, real).square().sum((1, 2, 3)).mean()
        return penalty * (self.weight / 2 * self.interval)


class WganGp:
    """Gulrajani et al. 2017: lambda * E (|grad D(x)| - 1)^2 at random points between real and fake images."""

    name = "wgan_gp"

    def __init__(self, weight: float, interval: int = 1) -> None:
        self.weight, self.interval = weight, interval

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        between = torch.lerp(real.float(), fake.float(), mix[:, None, None, None])
        norm = gradients(critic, between).flatten(1).norm(dim=1)
        return (norm - 1).square().mean() * (self.weight * self.interval)


class Penalty(Protocol):
    """A term of D's loss, taken every `interval` steps and already multiplied by that number."""

    name: str
    interval: int

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor: ...


def penalties_of(loss: LossSpec) -> list[Penalty]:
    """The penalties of nonzero weight; the table says which field of `loss` holds it, `<field>_interval` how often."""
    terms: list[Penalty] = []
    for name in registry.PENALTIES:
        field = registry.PENALTIES.facts(name)["weight"]
        if weight := getattr(loss, field):
            terms.append(registry.PENALTIES.load(name)(weight, getattr(loss, f"{field}_interval")))
    return terms
