"""What makes a network conditional on a class. All that belongs to one class is a row of a `ClassTable`, so that a child with
other classes can take over the rows that it shares with its parent by name (see `tlgan.transfer`).

`labels` is int64 `[N]`, the position of each image's class in the network's `classes`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlgan.models.blocks import BatchNorm2d, spectral


class ClassTable(nn.Module):
    """A vector a class. `[N] -> [N, F]`; zero at the start, or N(0, std^2).

    `equalised`: divided by the root of the number of classes as it is used.
    """

    equalised = False

    def __init__(self, classes: int, features: int, std: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))
        if std:
            nn.init.normal_(self.weight, 0.0, std)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.weight)


class ClassBatchNorm2d(BatchNorm2d):
    """Conditional batch normalisation (de Vries et al. 2017): each class scales and shifts channels in its own way.

    At the start all classes do as plain batch normalisation does.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels)
        self.gain, self.shift = ClassTable(classes, channels), ClassTable(classes, channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        gain, shift = (table(labels).to(x.dtype)[:, :, None, None] for table in (self.gain, self.shift))
        return super().forward(x) * (1 + gain) + shift


def batch_norm(channels: int, classes: int) -> nn.Module:
    """Conditional where there are classes."""
    return ClassBatchNorm2d(channels, classes) if classes else BatchNorm2d(channels)


def normed(norm: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    return norm(x, labels) if isinstance(norm, ClassBatchNorm2d) else norm(x)


class Projection(nn.Module):
    """Adds the class's vector times the image's features to a logit (Miyato, Koyama 2018). `[N, F], [N] -> [N]`"""

    def __init__(self, classes: int, features: int, *, spectral_norm: bool) -> None:
        super().__init__()
        self.table = ClassTable(classes, features, std=features**-0.5)
        spectral(self.table, spectral_norm)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return (self.table(labels).to(features.dtype) * features).sum(1)
