"""LeCam regularisation (Tseng et al. 2021): D's logits are kept near the moving averages of the other side's.

The paper's formula, E (D(x) - a_fake)^2 + E (D(G(z)) - a_real)^2; the authors' code squares only what is above, or below, the
average, and waits some thousand steps. Here the averages start as the first batch's means. They are of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.learners.terms import Term, View
from tlgan.recipe import Recipe


class LeCam(Term):
    """Of D's loss, at every step of D. The averages are part of the state; a term sees those of the steps before."""

    name = "lecam"

    def __init__(self, weight: float, decay: float, world: World) -> None:
        self.weight, self.decay, self.world = weight, decay, world
        self.averages: Tensor | None = None

    def __call__(self, view: View) -> Tensor:
        assert view.logits_real is not None
        means = self.world.mean(torch.stack([view.logits_real.mean(), view.logits_fake.mean()]))
        if self.averages is None:
            self.averages = means
        real, fake = self.averages
        term = (view.logits_real - fake).square().mean() + (view.logits_fake - real).square().mean()
        self.averages = means.lerp(self.averages, self.decay)
        return term * self.weight

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.averages is None else {"averages": self.averages}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.averages = state["averages"].to(self.world.device) if state else None


def lecam_of(recipe: Recipe, world: World) -> list[LeCam]:
    loss = recipe.loss
    return [LeCam(loss.lecam, loss.lecam_decay, world)] if loss.lecam else []
