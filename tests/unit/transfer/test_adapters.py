"""Adapters against the formulas of their papers, and what is left of them in a published network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_gan import pair
from torch import Tensor, nn

from tlgan.artifact import load_network, save_networks
from tlgan.models.adapters import Adapter, KernelModulation, KernelScaleShift, SingularValues, adapt, adapters, plain

MAKERS = {
    "kernel_scale_shift": KernelScaleShift,
    "singular_values": SingularValues,
    "kernel_modulation": lambda weight, axis: KernelModulation(weight, axis, rank=2),
}


def weight(seed: int = 0) -> Tensor:
    """Four kernels that read three channels."""
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def stirred(adapter: Adapter) -> Adapter:
    rng = torch.Generator().manual_seed(1)
    for p in adapter.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=rng)
    return adapter


@pytest.mark.parametrize("name", list(MAKERS))
def test_at_the_start_the_weight_is_the_same_to_the_bit(name: str) -> None:
    for axis in (0, 1):
        assert torch.equal(MAKERS[name](weight(), axis)(weight()), weight())


@pytest.mark.parametrize("name", list(MAKERS))
def test_the_order_of_channels_in_memory_does_not_matter(name: str) -> None:
    """A transposed convolution has its outputs second: the same numbers, the other way round."""
    torch.manual_seed(0)
    rows = MAKERS[name](weight(), 0)
    torch.manual_seed(0)
    turned = MAKERS[name](weight().transpose(0, 1).contiguous(), 1)
    rng = torch.Generator().manual_seed(1)
    for p, q in zip(rows.parameters(), turned.parameters(), strict=True):
        p.data += torch.randn(p.shape, generator=rng)
        q.data.copy_(p.transpose(0, 1) if p.dim() == 4 else p)
    torch.testing.assert_close(turned(weight().transpose(0, 1)), rows(weight()).transpose(0, 1))


def test_a_scale_and_a_shift_for_each_kernel() -> None:
    adapter = stirred(KernelScaleShift(weight(), 0))
    changed = adapter(weight())
    for o in range(4):
        for i in range(3):
            expected = weight()[o, i] * adapter.gamma[o, i] + adapter.beta[o, i]
            torch.testing.assert_close(changed[o, i], expected)
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 4 * 3


def test_singular_values_move_and_singular_vectors_stay() -> None:
    adapter = SingularValues(weight(), 0)
    adapter.change.data = torch.tensor([0.5, 0.1, -0.2, 0.0])
    left, values, right = torch.linalg.svd(weight().flatten(1), full_matrices=False)
    expected = left @ torch.diag(values + adapter.change) @ right
    torch.testing.assert_close(adapter(weight()).flatten(1), expected, rtol=1e-5, atol=1e-5)


def test_modulation_is_of_low_rank_and_of_the_chosen_kernels_only() -> None:
    adapter = stirred(KernelModulation(weight(), 0, rank=1))
    adapter.chosen.copy_(torch.tensor([True, False, True, False]))
    own = weight().requires_grad_(True)
    changed = adapter(own)
    factors = 1 + adapter.A @ adapter.B
    for o in range(4):
        scale = factors[o] if o in (0, 2) else torch.ones(3)
        torch.testing.assert_close(changed[o], own[o] * scale[:, None, None])
    changed.square().sum().backward()
    assert own.grad is not None
    assert adapter.A.grad is not None
    trains = own.grad.flatten(1).abs().sum(1) > 0
    assert trains.tolist() == [False, True, False, True]  # kept kernels are modulated, the others train
    assert (adapter.A.grad.abs().sum(1) > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("arch", ["dcgan", "resnet", "stylegan2"])
@pytest.mark.parametrize("name", list(MAKERS))
def test_what_is_published_is_plain_and_draws_the_same(name: str, arch: str, tmp_path: Path) -> None:
    G, _ = pair(arch)
    names = set(G.state_dict())
    adapt(G, MAKERS[name], least_dims=2)
    for _, adapter in adapters(G):
        stirred(adapter)
    save_networks(tmp_path, {"G_ema": G}, type="gan")
    loaded = load_network(tmp_path, "G_ema")
    assert set(loaded.state_dict()) == names
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        published, adapted, before = loaded(z), G.eval()(z), pair(arch)[0].eval()(z)
    assert (published - adapted).norm() < 1e-4 * adapted.norm()
    assert (published - before).norm() > 0.01 * before.norm()
    assert list(adapters(G))  # the network that trains is left alone


def test_a_network_without_adapters_is_its_own_plain_form() -> None:
    G, D = pair()
    assert plain(G) is G
    D.heads = nn.ModuleDict({"extra": nn.Linear(2, 2)})
    names = set(D.state_dict())
    assert set(plain(D).state_dict()) == {name for name in names if name.startswith("blocks.")} < names
    assert hasattr(D, "heads")


def test_spectral_norms_are_no_adapters() -> None:
    _, D = pair()
    assert plain(D) is D
    assert any(".parametrizations." in name for name in plain(D).state_dict())


@pytest.mark.parametrize("arch", ["dcgan", "resnet", "stylegan2"])
def test_a_discriminator_is_adapted_under_its_spectral_norms(arch: str) -> None:
    _, D = pair(arch)
    names, x = set(D.state_dict()), torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    D.eval()
    with torch.no_grad():
        before = D(x)
        adapt(D, SingularValues, least_dims=2)
        assert torch.equal(D(x), before)
        for _, adapter in adapters(D):
            stirred(adapter)
        merged = plain(D)
        assert set(merged.state_dict()) == names
        torch.testing.assert_close(merged(x), D(x), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(D(x), before, rtol=1e-3)
