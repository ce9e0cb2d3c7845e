"""Convolutions to and from a point are those of torch: same values, gradients and second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tlgan.models.points import MapToPoint, PointToMap


def twins(ours: nn.Module, torchs: nn.Module) -> None:
    ours.to(memory_format=torch.channels_last).double()
    torchs.double().load_state_dict(ours.state_dict())


def derivatives(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients of a function that isn't linear in it, and the gradient of the gradient's square."""
    x = x.clone().requires_grad_(True)
    y = module(x)
    first = torch.autograd.grad(y.sin().sum(), [x, *module.parameters()], create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), list(module.parameters()), allow_unused=True)
    return [y, *first, *(part for part in second if part is not None)]


@pytest.mark.parametrize("norm", [False, True])
def test_map_to_point(norm: bool) -> None:
    ours, torchs = MapToPoint(6, 3, 4), nn.Conv2d(6, 3, 4)
    if norm:
        spectral_norm(ours), spectral_norm(torchs)
    twins(ours, torchs)
    x = torch.randn(5, 6, 4, 4, dtype=torch.double).contiguous(memory_format=torch.channels_last)
    for a, b in zip(derivatives(ours, x), derivatives(torchs, x), strict=True):
        torch.testing.assert_close(a, b)


def test_point_to_map() -> None:
    ours, torchs = PointToMap(6, 3, 4, bias=False), nn.ConvTranspose2d(6, 3, 4, bias=False)
    twins(ours, torchs)
    x = torch.randn(5, 6, 1, 1, dtype=torch.double)
    for a, b in zip(derivatives(ours, x), derivatives(torchs, x), strict=True):
        torch.testing.assert_close(a, b)
    assert ours(x).is_contiguous(memory_format=torch.channels_last)
