"""Guards end a training that has gone wrong: numbers that are not finite, and bounds that the person running it has set.

Bounds are on metrics (recall, duplicates, ...), looked at when they are measured, and on statistics of the training (loss_d,
logits_real, ...), looked at every tick. All of it is a function of the training, so a resumed run ends where the other would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tlgan.errors import Collapsed, RunFailed, SpecError
from tlgan.models.blocks import Network

WEIGHTS = "weights of "
LOOK = "look at the last sample grid; loosen `guards`, or train otherwise"


class Bound(Protocol):
    """A named number and what it must keep to."""

    @property
    def metric(self) -> str: ...

    def passes(self, value: float) -> bool: ...


class Guards:
    """`metrics` and `statistics` are bounded from `after` images on; one must be missed for `during` images without a break.

    `state` goes into checkpoints. `check_...` raise `Collapsed` when a bound was missed long enough.
    """

    def __init__(
        self, metrics: Sequence[Bound] = (), statistics: Sequence[Bound] = (), after: int = 0, during: int = 0
    ) -> None:
        self.metrics, self.statistics, self.after, self.during = metrics, statistics, after, during
        self.state: dict[str, int] = {}  # bound -> the image count at which it was first missed

    def check_metrics(self, nimg: int, values: Mapping[str, float]) -> None:
        self._check(self.metrics, nimg, values)

    def check_statistics(self, nimg: int, values: Mapping[str, float]) -> None:
        """Raises `SpecError` for a bound on what this training does not report."""
        if nimg < self.after:
            return
        for bound in self.statistics:
            if bound.metric not in values and str(bound) not in self.state:
                raise SpecError(
                    f"guards.statistics: this training reports no {bound.metric}; it reports {', '.join(values)}"
                )
        self._check(self.statistics, nimg, values)

    def _check(self, bounds: Sequence[Bound], nimg: int, values: Mapping[str, float]) -> None:
        if nimg < self.after:
            return
        for bound in bounds:
            if bound.metric not in values:
                continue
            if bound.passes(values[bound.metric]):
                self.state[str(bound)] = -1
                continue
            since = self.state.get(str(bound), -1)
            since = self.state[str(bound)] = nimg if since < 0 else since
            if nimg - since >= self.during:
                missed = f" since {since / 1000:g} kimg" if nimg > since else ""
                raise Collapsed(
                    f"stopped by a guard: {bound.metric} is {values[bound.metric]:.4g} at {nimg / 1000:g} kimg, "
                    f"the guard asks for {bound}{missed}",
                    hint=LOOK,
                )


def weight_norms(networks: Mapping[str, Network]) -> dict[str, Tensor]:
    """A number for each network that is finite only if all its weights are."""
    return {
        WEIGHTS + which: torch.stack(torch._foreach_norm([p.detach() for p in network.parameters()])).float().sum()
        for which, network in networks.items()
    }


def check_finite(nimg: int, means: dict[str, float]) -> dict[str, float]:
    """`means` without the norms of weights. Raises `RunFailed` when something in it is not finite."""
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise RunFailed(
            f"training diverged: {', '.join(bad)} is not finite at {nimg / 1000:g} kimg",
            hint="lower train.lr_g and train.lr_d, or add a penalty (loss.r1)",
        )
    return {name: value for name, value in means.items() if not name.startswith(WEIGHTS)}


def evidence(nimg: int, error: Exception) -> dict[str, Any]:
    """The event that says why a training was ended; its sample grid is the one at `nimg`."""
    return {"type": "guard", "nimg": nimg, "reason": str(error), "grid": nimg}
