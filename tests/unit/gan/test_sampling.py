"""Images from a generator: which latents, how rounded, how truncated."""

from __future__ import annotations

import pytest
import torch
from tiny_gan import LATENT_DIM, pair

import tlgan
from tlgan.errors import SpecError
from tlgan.models.blocks import Network
from tlgan.random import generator, latents
from tlgan.sampling import _slerp, draw, interpolate, stream, to_uint8


@pytest.fixture(scope="module")
def g() -> Network:
    """A generator whose images fill the range, in eval mode with settled statistics."""
    G, _ = pair(seed=4)
    with torch.no_grad():
        for p in G.parameters():
            if p.dim() > 1:
                p.mul_(20)
        for _ in range(30):
            G(torch.randn(32, LATENT_DIM, generator=generator(0, "settle")))
    return G.eval()


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 64), (3, 5), (60, 10), (64, 64), (100, 200), (127, 2)])
def test_a_latent_depends_on_the_seed_and_its_number_only(start: int, count: int) -> None:
    rows = latents(7, start, count, 5)
    assert rows.shape == (count, 5)
    assert torch.equal(rows, latents(7, 0, 400, 5)[start : start + count])
    assert not torch.equal(rows, latents(8, start, count, 5))


def test_no_latents() -> None:
    assert latents(0, 0, 0, 5).shape == (0, 5)


def test_latents_are_standard_normal_and_all_different() -> None:
    z = latents(0, 0, 4096, 8)
    assert z.mean().abs() < 0.02
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert len(z.unique(dim=0)) == 4096


def test_draws_of_other_purposes_and_positions_are_independent() -> None:
    keys = [(0, "z", 0), (0, "z", 1), (0, "r1", 0), (1, "z", 0), (2**63 - 1, "z", 0), (11, "z", 0), (1, "z", 10)]
    assert len({float(torch.rand((), generator=generator(*key))) for key in keys}) == len(keys)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "z"))
    latents(0, 0, 3, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_does_not_depend_on_how_many_are_asked_for(g: Network) -> None:
    many = tlgan.generate(g, n=300, seed=3).int()
    assert many.shape == (300, 1, 32, 32)
    for n in (1, 7, 64, 257):
        few = tlgan.generate(g, n=n, seed=3).int()
        assert (few - many[:n]).abs().max() <= 1  # a batch of another size may round the last bit the other way
        assert ((few - many[:n]) != 0).float().mean() < 1e-3
    assert torch.equal(tlgan.generate(g, n=300, seed=3).int(), many)
    assert not torch.equal(tlgan.generate(g, n=300, seed=4).int(), many)


def test_streamed_images_are_the_same(g: Network) -> None:
    parts = list(stream(g, 300, seed=3))
    assert [len(part) for part in parts] == [256, 44]
    assert torch.equal(torch.cat(parts), tlgan.generate(g, n=300, seed=3))


def test_rounding_to_the_nearest_level() -> None:
    levels = torch.arange(256, dtype=torch.float32)
    exact = levels / 127.5 - 1
    assert torch.equal(to_uint8(exact), levels.to(torch.uint8))
    assert torch.equal(to_uint8(exact + 0.45 / 127.5), levels.to(torch.uint8))
    assert torch.equal(to_uint8(exact - 0.45 / 127.5), levels.to(torch.uint8))
    assert to_uint8(torch.tensor([-1.5, 1.5, -1.0, 1.0])).tolist() == [0, 255, 0, 255]
    assert to_uint8(torch.tensor([0.5], dtype=torch.bfloat16)).tolist() == [191]


def test_drawn_images_are_what_the_network_gives(g: Network) -> None:
    z = latents(0, 0, 8, LATENT_DIM)
    with torch.no_grad():
        expected = ((g(z) + 1) * 127.5).round().clamp(0, 255)
    images = draw(g, z)
    assert images.dtype == torch.uint8
    assert torch.equal(images.float(), expected)
    assert images.float().std() > 20


def test_truncation_narrows_the_variety(g: Network) -> None:
    spread = {t: tlgan.generate(g, n=64, seed=0, truncation=t).float().std(0).mean().item() for t in (0.0, 0.5, 1.0)}
    assert spread[0.0] == 0
    assert 0 < spread[0.5] < spread[1.0]
    assert torch.equal(tlgan.generate(g, n=4, truncation=1.0), tlgan.generate(g, n=4))


@pytest.mark.parametrize("truncation", [-0.1, 1.1, float("nan")])
def test_truncation_outside_its_range_is_refused(g: Network, truncation: float) -> None:
    with pytest.raises(SpecError, match="truncation: expected a number from 0 to 1"):
        tlgan.generate(g, n=1, truncation=truncation)


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_are_refused(g: Network, n: int) -> None:
    with pytest.raises(SpecError, match=f"expected at least 1 image, received {n}"):
        tlgan.generate(g, n=n)


def test_a_walk_starts_and_ends_at_its_latents(g: Network) -> None:
    walk = interpolate(g, steps=5, seed=2, ends=3)
    assert walk.shape == (11, 1, 32, 32)
    ends = draw(g, latents(2, 0, 3, LATENT_DIM)).int()
    assert (walk[[0, 5, 10]].int() - ends).abs().max() <= 1
    steps = (walk[1:].float() - walk[:-1].float()).abs().mean((1, 2, 3))
    jump = (ends[1:].float() - ends[:-1].float()).abs().mean((1, 2, 3))
    assert steps.max() < jump.max()


def test_a_walk_stays_at_the_distance_of_its_ends() -> None:
    a, b = torch.eye(6)[0] * 2, torch.eye(6)[1] * 2
    points = _slerp(a, b, torch.linspace(0, 1, 9)[:-1, None])
    torch.testing.assert_close(points.norm(dim=1), torch.full((8,), 2.0))
    torch.testing.assert_close(points[4], (a + b) / 2**0.5)
    torch.testing.assert_close(_slerp(a, a, torch.tensor([[0.3]])), a[None])


@pytest.mark.parametrize(("steps", "ends"), [(0, 2), (3, 1)])
def test_a_walk_needs_steps_and_ends(g: Network, steps: int, ends: int) -> None:
    with pytest.raises(SpecError, match="at least 1 step and 2 ends"):
        interpolate(g, steps=steps, ends=ends)
