"""Gradient penalties of D, each a term of its loss. They stay in fp32 whatever the precision of the step."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tlgan import registry
from tlgan.distributed import World
from tlgan.learners.terms import Critic, Term, View
from tlgan.models.blocks import channels_last
from tlgan.random import generator
from tlgan.recipe import Recipe


def gradients(critic: Critic, x_nchw: Tensor) -> Tensor:
    """d sum(critic(x)) / dx, differentiable once more. `[N, C, H, W]`"""
    x_nchw = channels_last(x_nchw.detach().float()).requires_grad_(True)
    with torch.autocast(x_nchw.device.type, enabled=False):
        logits = critic(x_nchw)
    (grad,) = torch.autograd.grad(logits.sum(), x_nchw, create_graph=True)
    return grad


class R1:
    """Mescheder, Geiger, Nowozin 2018: gamma/2 * E |grad D(real)|^2."""

    name, at = "r1", "real"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        penalty = gradients(critic, real).square().sum((1, 2, 3)).mean()
        return penalty * (self.weight / 2)


class R2:
    """R1 at generated images: gamma/2 * E |grad D(fake)|^2 (Mescheder et al. 2018; Huang et al. 2024, R3GAN)."""

    name, at = "r2", "fake"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        penalty = gradients(critic, fake).square().sum((1, 2, 3)).mean()
        return penalty * (self.weight / 2)


class WganGp:
    """Gulrajani et al. 2017: lambda * E (|grad D(x)| - 1)^2 at random points between real and fake images."""

    name, at = "wgan_gp", "between"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        between = torch.lerp(real.float(), fake.float(), mix[:, None, None, None])
        norm = gradients(critic, between).flatten(1).norm(dim=1)
        return (norm - 1).square().mean() * self.weight


class Penalty(Protocol):
    """A function of the critic, of the images it saw and of uniform numbers `[N]` in [0, 1).

    `at`: which images it is taken at, "real", "fake" or "between" them.
    """

    name: str
    at: str
    weight: float

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor: ...


class PenaltyTerm(Term):
    """A penalty taken every `interval` steps of D."""

    def __init__(self, penalty: Penalty, interval: int, seed: int, world: World) -> None:
        self.penalty, self.interval, self.seed, self.world = penalty, interval, seed, world
        self.name = penalty.name

    def __call__(self, view: View) -> Tensor:
        assert view.shown_real is not None
        rng = generator(self.seed, self.name, view.step)
        mix = self.world.slice(torch.rand(len(view.real) * self.world.size, generator=rng)).to(view.real.device)
        critic, show = view.critic or view.D, view.show.get(self.penalty.at)
        if show is None:
            return self.penalty(critic, view.shown_real, view.shown_fake, mix)
        return self.penalty(lambda x_nchw: critic(show(x_nchw)), view.real, view.fake, mix)


def penalties_of(recipe: Recipe, world: World) -> list[PenaltyTerm]:
    """The penalties of nonzero weight; the table says which field of `loss` holds it, `<field>_interval` how often."""
    terms = []
    for name in registry.PENALTIES:
        field = registry.PENALTIES.facts(name)["weight"]
        if weight := getattr(recipe.loss, field):
            interval = getattr(recipe.loss, f"{field}_interval")
            terms.append(PenaltyTerm(registry.PENALTIES.load(name)(weight), interval, recipe.train.seed, world))
    return terms
