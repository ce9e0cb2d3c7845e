"""What every network of the table promises. A new one is tested by its line in the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_gan import LATENT_DIM, WIDTH, differing, pair

from tlgan import registry
from tlgan.artifact import load_network, save_networks
from tlgan.models import build_network
from tlgan.models.blocks import channels_last

ALL = [(arch, side) for arch in registry.ARCHS for side in registry.ARCHS.facts(arch)["resolutions"]]
NETWORKS = [(arch, side) for arch, side in ALL if side <= 128]
NORMS = [
    (arch, side, norm)
    for arch, side in NETWORKS
    for norm in ((True, False) if "spectral_norm" in registry.ARCHS.facts(arch)["options"] else (None,))
]
SMALL = [(arch, min(registry.ARCHS.facts(arch)["resolutions"])) for arch in registry.ARCHS]
ROLES = ["G", "D"]


def network(arch: str, side: int, role: str, *, channels: int = 3, seed: int = 0, **model):
    G, D = pair(arch, channels, seed, resolution=side, **model)
    return G if role == "G" else D


def awake(net):
    """`net` with something in the parameters that are zero at the start and would close a path."""
    rng = torch.Generator().manual_seed(5)
    for p in net.parameters():
        if p.dim() > 1 and not p.any():
            p.data.normal_(0, 0.03, generator=rng)
    return net


def inputs(role: str, side: int, count: int = 2, channels: int = 3, seed: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    shape = (count, LATENT_DIM) if role == "G" else (count, channels, side, side)
    return torch.randn(shape, generator=rng).clamp(-1, 1)


@pytest.mark.parametrize(
    ("arch", "side", "channels"),
    [
        pytest.param(*one, channels, marks=pytest.mark.minutes if one[1] == 1024 and channels == 1 else ())
        for one in ALL
        for channels in (1, 3)
    ],
)
def test_shapes_and_range(arch: str, side: int, channels: int) -> None:
    G, D = pair(arch, channels, resolution=side)
    images = G(inputs("G", side))
    assert images.shape == (2, channels, side, side)
    if registry.ARCHS.facts(arch).get("unbounded"):
        assert images.isfinite().all()
    else:
        assert images.abs().max() <= 1
    logits = D(images)
    assert logits.shape == (2,)
    assert logits.isfinite().all()
    assert G.latent_dim == LATENT_DIM


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("arch", "side"), NETWORKS)
def test_one_block_a_level_and_no_state_outside(arch: str, side: int, role: str) -> None:
    net = network(arch, side, role)
    levels = [f"b{4 << k}" for k in range(registry.blocks_at(side))]
    mapping = ["mapping"] if registry.ARCHS.facts(arch).get("styles") else []
    assert list(net.blocks) == (mapping + levels if role == "G" else levels[::-1])
    assert len(net.blocks) == registry.blocks_at(side, arch, role)
    assert levels[-1] == f"b{side}"
    assert [name for name in net.state_dict() if not name.startswith("blocks.")] == []
    assert all(any(True for _ in block.parameters()) for block in net.blocks.values())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("arch", "side", "spectral_norm"), NORMS)
def test_backward_reaches_every_parameter(arch: str, side: int, role: str, spectral_norm: bool | None) -> None:
    net = awake(network(arch, side, role, spectral_norm=spectral_norm))
    net(inputs(role, side, count=3)).square().sum().backward()
    unreached = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unreached == []
    sizes = {name: p.grad.norm().item() for name, p in net.named_parameters()}
    useless = [name for name, size in sizes.items() if size < 1e-5 * max(sizes.values())]  # as a bias before batch norm
    assert useless == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("arch", "side"), NETWORKS)
def test_saved_and_loaded_is_the_same_to_the_bit(arch: str, side: int, role: str, tmp_path: Path) -> None:
    net = network(arch, side, role)
    for _ in range(2):  # moves batch statistics and spectral norms
        net(inputs(role, side))
    save_networks(tmp_path, {role: net.to(memory_format=torch.channels_last)}, type="gan")
    loaded = load_network(tmp_path, role)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert differing(net.state_dict(), loaded.state_dict()) == []
    x = inputs(role, side)
    same = load_network(tmp_path, role)
    assert torch.equal(loaded(x), same(x))
    torch.testing.assert_close(net.eval()(x), loaded(x), rtol=1e-5, atol=1e-5)  # another memory layout


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("arch", "side"), SMALL)
def test_rebuilt_from_its_own_description(arch: str, side: int, role: str) -> None:
    net = network(arch, side, role)
    again = build_network(net.arch, net.role, net.config)
    assert (again.arch, again.role, again.config) == (arch, role, net.config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}


@pytest.mark.parametrize(("arch", "side"), SMALL)
def test_fresh_weights_are_a_function_of_the_seed(arch: str, side: int) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [net.state_dict() for net in pair(arch, seed=5, resolution=side)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = [net.state_dict() for net in pair(arch, seed=5, resolution=side)]
    other = [net.state_dict() for net in pair(arch, seed=6, resolution=side)]
    assert [differing(a, b) for a, b in zip(first, again, strict=True)] == [[], []]
    for a, b in zip(first, other, strict=True):
        assert {name for name, value in a.items() if value.dim() > 1 and value.any()} <= set(differing(a, b))


@pytest.mark.parametrize(("arch", "side", "spectral_norm"), NORMS)
def test_the_gradient_of_a_gradient_agrees_with_differences(arch: str, side: int, spectral_norm: bool | None) -> None:
    D = awake(network(arch, side, "D", spectral_norm=spectral_norm)).double().eval()
    for p in D.parameters() if arch != "r3gan" else ():  # which has many layers and no normalisation
        p.data.mul_(3.0)  # away from the flat start of DCGAN's small weights
    x = inputs("D", side).double()

    def penalty() -> torch.Tensor:
        at = x.clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(D(at).sum(), at, create_graph=True)
        return grad.square().sum()

    params = [p for p in D.parameters() if p.dim() > 1]
    penalty().backward()
    rng = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=rng, dtype=torch.double) for p in params]
    expected = sum((p.grad * d).sum() for p, d in zip(params, directions, strict=True))
    step, values = 1e-9 if arch == "r3gan" else 1e-7, []  # a deep network has many kinks to step over
    for sign in (1, -1):
        for p, d in zip(params, directions, strict=True):
            p.data.add_(d, alpha=sign * step)
        values.append(float(penalty().detach()))
        for p, d in zip(params, directions, strict=True):
            p.data.sub_(d, alpha=sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("arch", "side"), NETWORKS)
def test_the_memory_layout_does_not_change_the_numbers(arch: str, side: int, role: str, channels: int) -> None:
    plain = network(arch, side, role, channels=channels)
    other = network(arch, side, role, channels=channels).to(memory_format=torch.channels_last)
    x = inputs(role, side, channels=channels)
    y = other(channels_last(x) if role == "D" else x)
    torch.testing.assert_close(y, plain(x), rtol=1e-5, atol=1e-4, check_stride=False)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("arch", "side"), SMALL)
def test_two_forwards_before_one_backward(arch: str, side: int, role: str) -> None:
    """The sum of both gradients, and no complaint that something was overwritten."""
    net, twin = network(arch, side, role), network(arch, side, role)
    a, b = inputs(role, side, seed=1), inputs(role, side, seed=2)
    (net(a).square().sum() + net(b).square().sum()).backward()
    for x in (a, b):
        twin(x).square().sum().backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("arch", "side"), sorted({(arch, 32) for arch, _, norm in NORMS if norm}))
def test_spectral_norms_are_one(arch: str, side: int) -> None:
    D = network(arch, side, "D")
    for _ in range(50):
        D(inputs("D", side))
    D.eval()
    normed = [m for m in D.modules() if hasattr(m, "parametrizations")]
    assert normed
    for module in normed:
        assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("arch", "side"), SMALL)
def test_only_training_moves_statistics(arch: str, side: int) -> None:
    for role in ROLES:
        net = network(arch, side, role)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        net.eval()(inputs(role, side))
        assert differing(before, net.state_dict()) == []
        net.train()(inputs(role, side))
        moved = set(differing(before, net.state_dict()))
        buffers = {name for name, _ in net.named_buffers()}
        assert bool(moved) == bool(buffers)
        assert moved <= buffers


def test_widths_double_a_level_up_to_eight_times() -> None:
    G, D = pair("dcgan", 1, resolution=128)
    by_block = {name: block[0].out_channels for name, block in list(D.blocks.items())[:-1]}
    assert by_block == {"b128": WIDTH, "b64": 2 * WIDTH, "b32": 4 * WIDTH, "b16": 8 * WIDTH, "b8": 8 * WIDTH}
    assert [block[0].in_channels for block in G.blocks.values()][1:] == [8 * WIDTH, 8 * WIDTH, 4 * WIDTH, 8, WIDTH]


def test_one_channel_images_are_laid_out_for_fast_convolutions() -> None:
    x = torch.randn(4, 1, 8, 8)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride() == (64, 1, 8, 1)
    assert channels_last(torch.randn(4, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
