"""Convolutions made for speed are those of torch: same values, gradients and second derivatives."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tlgan.models import convolutions
from tlgan.models.blocks import channels_last
from tlgan.models.convolutions import Down, FromImage, MapToPoint, PointToMap, ToImage, Up


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


@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.parametrize(("kind", "torchs", "bias"), [(Down, nn.Conv2d, True), (Up, nn.ConvTranspose2d, False)])
def test_between_maps_in_bf16(
    kind: type[nn.Module], torchs: type[nn.Module], bias: bool, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of small maps take their gradient from a product, which rounds once as torch's does; others are torch's."""
    torch.manual_seed(0)
    widths = (16, 32) if kind is Down else (32, 16)
    ours, theirs = (one(*widths, 4, 2, 1, bias=bias) for one in (kind, torchs))
    theirs.load_state_dict(ours.state_dict())
    product = Mock(wraps=convolutions._as_product)
    monkeypatch.setattr(convolutions, "_as_product", product)
    x = channels_last(torch.randn(6, widths[0], *([2 * side] * 2 if kind is Down else [side] * 2)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = [derivatives(module, x) for module in (ours, theirs)]
    assert product.called == (side == 4)
    assert made[0][0].dtype == torch.bfloat16
    for a, b in zip(*made, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() <= 0.02 * b.norm()


@pytest.mark.parametrize("kind", [Down, Up])
def test_the_product_is_the_gradient(kind: type[nn.Module]) -> None:
    """Not to the rounding of bf16: in double precision."""
    ours = kind(*((16, 32) if kind is Down else (32, 16)), 4, 2, 1).double()
    x = channels_last(torch.randn(3, 16, 8, 8, dtype=torch.double))
    h = channels_last(torch.randn(3, 32, 4, 4, dtype=torch.double))
    ours(x if kind is Down else h).backward(h if kind is Down else x)
    torch.testing.assert_close(convolutions._as_product(h, x, ours.weight), ours.weight.grad)
