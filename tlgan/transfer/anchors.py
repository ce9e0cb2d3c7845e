"""Weight anchors: parameters are held near the source's, each with its importance."""

from __future__ import annotations

from torch import Tensor

from tlgan.learners.terms import Term, View
from tlgan.models.blocks import Network


class WeightAnchor(Term):
    """`weight * sum_i F_i (p_i - p0_i)^2` over the parameters of one network that train; F is 1 without `importance`.

    The anchors p0 are what the parameters are when the term is made. They are no state: a resumed training finds them in its
    parent again.
    """

    def __init__(
        self, name: str, which: str, network: Network, weight: float, importance: dict[str, Tensor] | None = None
    ) -> None:
        self.name, self.side, self.weight, self.importance = name, which, weight, importance
        self.anchors = {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}

    def __call__(self, view: View) -> Tensor:
        network = view.G if self.side == "G" else view.D
        parameters = dict(network.named_parameters())
        total = view.fake.new_zeros(())
        for name, anchor in self.anchors.items():
            squares = (parameters[name] - anchor).square()
            total = total + (squares if self.importance is None else squares * self.importance[name]).sum()
        return total * self.weight
