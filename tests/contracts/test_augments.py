"""What every augmentation promises, and DiffAugment's ranges as in the paper."""

from __future__ import annotations

import pytest
import torch

from tlgan import registry
from tlgan.augment import build_augment
from tlgan.augment.diffaugment import color, cutout, translation
from tlgan.distributed import World
from tlgan.random import generator
from tlgan.recipe import AugmentSpec

AUGMENTS = list(registry.AUGMENTS)


def always(name: str) -> AugmentSpec:
    """The augmentation at its strongest."""
    return AugmentSpec(name=name, p=1.0) if registry.AUGMENTS.facts(name).get("adaptive") else AugmentSpec(name=name)


def images(count: int, channels: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=generator(seed, "images")) * 2 - 1


def constant(value: float, count: int, effects: int) -> torch.Tensor:
    return torch.full((count, effects), value)


@pytest.mark.parametrize("name", AUGMENTS)
class TestEveryAugmentation:
    def test_shape_and_dtype_stay(self, name: str) -> None:
        augment = build_augment(always(name))
        for channels in (1, 3):
            x = images(5, channels)
            y = augment(x, augment.draw(5, generator(0, "a")))
            assert (y.shape, y.dtype) == (x.shape, x.dtype)
            assert y.isfinite().all()

    def test_twice_differentiable(self, name: str) -> None:
        augment = build_augment(always(name))
        params = augment.draw(2, generator(1, "a"))
        x = images(2, 2, 6).double().requires_grad_(True)
        scale = torch.tensor(1.3, dtype=torch.double, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: augment(x, params), x)
        assert torch.autograd.gradgradcheck(lambda x: augment(x, params).pow(3), x)
        (grad,) = torch.autograd.grad((scale * augment(x, params)).pow(3).sum(), x, create_graph=True)
        grad.square().sum().backward()
        assert scale.grad.abs() > 0
        assert x.grad.abs().sum() > 0

    def test_a_rank_does_to_its_rows_what_one_process_does(self, name: str) -> None:
        augment = build_augment(always(name))
        x = images(6)
        params = augment.draw(6, generator(2, "a"))
        whole = augment(x, params)
        for rank in range(3):
            world = World(rank, 3)
            own = augment(world.slice(x), {key: world.slice(values) for key, values in params.items()})
            torch.testing.assert_close(own, world.slice(whole))

    def test_draws_are_a_function_of_the_generator(self, name: str) -> None:
        augment = build_augment(always(name))
        a, b = (augment.draw(4, generator(3, "a")) for _ in range(2))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)

    def test_real_and_generated_images_undergo_the_same_distribution(self, name: str) -> None:
        """The same images as real ones and as generated ones: equal moments over many draws."""
        augment = build_augment(always(name))
        x = images(1).expand(4000, -1, -1, -1)
        means = []
        for which in ("augment/real", "augment/fake", "augment/g"):
            y = augment(x, augment.draw(len(x), generator(4, which)))
            means.append((y.mean((0, 1)), y.std((0, 1))))
        for mean, std in means[1:]:
            torch.testing.assert_close(mean, means[0][0], atol=0.08, rtol=0)
            torch.testing.assert_close(std, means[0][1], atol=0.08, rtol=0)


def test_color_in_the_middle_of_its_ranges_is_the_identity() -> None:
    torch.testing.assert_close(color(images(3), constant(0.5, 3, 3)), images(3))


@pytest.mark.parametrize("u", [0.0, 0.25, 0.999])
def test_color_by_its_definition(u: float) -> None:
    """Brightness u - 0.5 is added, saturation scales by 2u about grey, contrast by u + 0.5 about the image's mean."""
    x, half = images(2), torch.tensor([0.5, 0.5, 0.5])
    grey, level = x.mean(1, keepdim=True), x.mean((1, 2, 3), keepdim=True)
    expected = [x + (u - 0.5), grey + 2 * u * (x - grey), level + (u + 0.5) * (x - level)]
    for effect, wanted in enumerate(expected):
        params = half.clone()
        params[effect] = u
        torch.testing.assert_close(color(x, params.expand(2, 3)), wanted)


def test_saturation_leaves_grey_images_alone() -> None:
    params = torch.tensor([[0.5, 0.9, 0.5]])
    torch.testing.assert_close(color(images(1, channels=1), params), images(1, channels=1))


@pytest.mark.parametrize("side", [16, 32, 64])
def test_translation_reaches_an_eighth_of_the_side_and_no_farther(side: int) -> None:
    u = torch.rand(4000, 2, generator=generator(0, "u"))
    dot = torch.zeros(4000, 1, side, side)
    dot[:, :, side // 2, side // 2] = 1
    moved = translation(dot, u).flatten(1)
    assert (moved.sum(1) == 1).all()
    at = moved.argmax(1)
    for position in (at // side, at % side):
        shifts, counts = (position - side // 2).unique(return_counts=True)
        reach = side // 8
        assert shifts.tolist() == list(range(-reach, reach + 1))
        share = counts / 4000
        assert share.min() > 0.5 / (2 * reach + 1)
        assert share.max() < 1.6 / (2 * reach + 1)


def test_translation_fills_with_zeros_and_keeps_the_rest() -> None:
    x = images(1) + 2  # no zero inside
    up_left = translation(x, constant(0.9999, 1, 2))
    torch.testing.assert_close(up_left[:, :, :-2, :-2], x[:, :, 2:, 2:])
    assert not up_left[:, :, -2:].any()
    assert not up_left[:, :, :, -2:].any()
    torch.testing.assert_close(translation(x, constant(0.5, 1, 2)), x)


@pytest.mark.parametrize("side", [16, 32])
def test_cutout_is_a_square_of_half_the_side(side: int) -> None:
    u = torch.rand(2000, 2, generator=generator(1, "u"))
    holes = (cutout(torch.ones(2000, 1, side, side), u) == 0).squeeze(1)
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(heights * widths, holes.sum((1, 2)))  # filled rectangles
    assert heights.max() == widths.max() == side // 2
    assert heights.min() >= side // 4  # centred in the image: at least half of a hole is inside
    assert torch.equal(cutout(torch.ones(1, 1, side, side), constant(0.5, 1, 2)) == 0, _centred_hole(side))


def _centred_hole(side: int) -> torch.Tensor:
    hole = torch.zeros(1, 1, side, side, dtype=torch.bool)
    hole[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    return hole


def test_the_policy_chooses_the_effects() -> None:
    augment = build_augment(AugmentSpec(name="diffaugment", policy=["cutout"]))
    assert list(augment.draw(2, generator(0, "a"))) == ["cutout"]
    x = images(3) + 2
    y = augment(x, augment.draw(3, generator(0, "a")))
    assert torch.equal(y[y != 0], x[y != 0])
    assert (y == 0).any()
