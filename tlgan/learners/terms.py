"""Terms: what is added to the adversarial loss of D or G. Penalties, regularisers and transfer methods are all terms.

A term is lazy (Karras et al. 2020, StyleGAN2): it is taken every `interval` steps of its side, times `interval`. That correction
is made here, in `Terms.add`, and nowhere else; statistics show the value before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tlgan.models.blocks import Network

Critic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """What a term may look at: one phase of a step. Images are `[N, C, H, W]`, logits `[N]`, latents `[N, latent_dim]`.

    `shown_...` are images as D saw them, augmented. In D's phase `fake` has no gradient; in G's phase D's weights have none,
    and `shown_real` and `logits_real` are None unless the loss compares real and generated logits. `features`: outputs of
    the blocks that `taps` of the terms name, keyed `"G.b8"`; D's have the rows of real images first, then of generated ones.
    Logits are those that the adversarial loss is about, which may be of some rows only (`Method.rows`).

    `critic`: D for as many images as `real` has, with their labels where it is conditional; None stands for D itself.
    `show`: for augmentations that penalties are taken through, what they did to the images, "real" and "fake".
    """

    step: int
    G: Network
    D: Network
    real: Tensor
    fake: Tensor
    z: Tensor
    inputs: dict[str, Any]
    shown_fake: Tensor
    logits_fake: Tensor
    shown_real: Tensor | None = None
    logits_real: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)
    critic: Critic | None = None
    show: Mapping[str, Critic] = field(default_factory=dict)


class Term:
    """One summand, already weighted. What it remembers from step to step is its state and goes into checkpoints.

    `side`: whose loss it is part of, "D" or "G". `taps`: blocks whose outputs it wants to see, such as "D.b16".
    """

    name: str
    side = "D"
    interval = 1
    taps: Sequence[str] = ()

    def __call__(self, view: View) -> Tensor:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state


class Terms:
    """All terms of a training, by side."""

    def __init__(self, terms: Iterable[Term]) -> None:
        self.all = list(terms)
        names = [term.name for term in self.all]
        assert len(set(names)) == len(names), f"two terms of one name: {names}"

    def due(self, side: str, step: int) -> list[Term]:
        return [term for term in self.all if term.side == side and step % term.interval == 0]

    def taps(self, phase: str, step: int, which: str) -> list[str]:
        """Blocks of network `which` that terms due in a phase want to see."""
        wanted = [tap.partition(".") for term in self.due(phase, step) for tap in term.taps]
        return list(dict.fromkeys(block for network, _, block in wanted if network == which))

    def add(self, loss: Tensor, side: str, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss` with the terms that are due, and the value of each."""
        stats: dict[str, Tensor] = {}
        for term in self.due(side, view.step):
            value = term(view)
            stats[term.name] = value
            loss = loss + value * term.interval
        return loss, stats

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """By term; without those that remember nothing."""
        return {term.name: state for term in self.all if (state := term.state_dict())}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        for term in self.all:
            term.load_state_dict(state.get(term.name, {}))
