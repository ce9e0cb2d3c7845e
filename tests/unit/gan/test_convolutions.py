"""Convolutions at the ends of networks are those of torch: same values, gradients and second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tlgan.models.blocks import channels_last
from tlgan.models.convolutions import FromImage, MapToPoint, PointToMap, ToImage


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", [False, True])
def test_from_image(channels: int, norm: bool) -> None:
    ours, torchs = FromImage(channels, 6, 4, 2, 1), nn.Conv2d(channels, 6, 4, 2, 1)
    if norm:
        spectral_norm(ours), spectral_norm(torchs)
    twins(ours, torchs)
    x = channels_last(torch.randn(5, channels, 10, 8, dtype=torch.double))
    for a, b in zip(derivatives(ours, x), derivatives(torchs, x), strict=True):
        torch.testing.assert_close(a, b)
    assert ours(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_to_image(channels: int) -> None:
    ours, torchs = ToImage(6, channels, 4, 2, 1), nn.ConvTranspose2d(6, channels, 4, 2, 1)
    twins(ours, torchs)
    h = torch.randn(5, 6, 5, 4, dtype=torch.double).contiguous(memory_format=torch.channels_last)
    for a, b in zip(derivatives(ours, h), derivatives(torchs, h), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("frozen", ["input", "weight"])
@pytest.mark.parametrize(("kind", "widths"), [(FromImage, (1, 6)), (ToImage, (6, 1))])
def test_no_gradient_where_none_is_wanted(kind: type[nn.Module], widths: tuple[int, int], frozen: str) -> None:
    module = kind(*widths, 4, 2, 1)
    x = torch.randn(2, module.in_channels, 8, 8, requires_grad=frozen != "input")
    module.requires_grad_(frozen != "weight")
    module(x).sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert all((p.grad is None) == (frozen == "weight") for p in module.parameters())


def test_autocast_gives_torchs_own() -> None:
    module = FromImage(1, 6, 4, 2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(torch.randn(2, 1, 8, 8))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
