"""ADA against literal computations of its transformations, the strength that follows D, and penalties taken through it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny_gan import dataset, differing, flat, new_learner, recipe, run_steps
from torch import Tensor

from tlgan.augment import build_augment, geometry
from tlgan.augment.ada import blit, roll, warped
from tlgan.augment.apa import Apa
from tlgan.augment.colour import recolour
from tlgan.augment.strength import Strength
from tlgan.distributed import World
from tlgan.random import generator
from tlgan.recipe import AugmentSpec

ALWAYS = torch.tensor(1.0)


def images(count: int = 1, channels: int = 3, side: int = 16, seed: int = 0, width: int | None = None) -> Tensor:
    shape = (count, channels, side, width or side)
    return torch.rand(shape, generator=generator(seed, "images"), dtype=torch.double) * 2 - 1


def smooth(side: int = 32) -> Tensor:
    """A blob away from the centre, far below the resolution's limit. `[1, 1, side, side]`"""
    at = torch.arange(side, dtype=torch.double)
    row, col = at[:, None] / side, at[None, :] / side
    return torch.exp(-(((col - 0.35) * 7) ** 2) - (((row - 0.6) * 9) ** 2))[None, None]


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.double)


def test_the_filter_is_orthonormal_with_six_vanishing_moments() -> None:
    taps = np.array(geometry.SYM6)
    assert taps.sum() == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(6):
        assert taps[2 * shift :] @ taps[: len(taps) - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-11)
    for moment in range(6):
        assert sum((-1) ** k * k**moment * tap for k, tap in enumerate(taps)) == pytest.approx(0, abs=1e-8)


def test_enlarging_and_reducing_are_the_filter_as_convolutions() -> None:
    """Zeros between samples, convolved; and its adjoint. Matrices against torch's convolutions."""
    x, taps = images(1, 1, 20), torch.tensor(geometry.SYM6, dtype=torch.double)
    guard = geometry.GUARD
    line = x[0, 0, 0]
    padded = F.pad(line[None, None], (4, 7), mode="reflect")
    up = F.conv_transpose1d(padded, taps[None, None], stride=2, padding=5)
    torch.testing.assert_close(geometry._enlarging(20, 4, 7, x) @ line, up[0, 0])
    wide = images(1, 1, 2 * (20 + 2 * guard))[0, 0, 0]
    down = F.conv1d(wide[None, None, 1:-1], taps[None, None], stride=2)
    torch.testing.assert_close(geometry._reducing(20, x) @ wide, down[0, 0])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24), (24, 16)])
def test_identity_and_whole_pixel_shifts_give_the_pixels(height: int, width: int) -> None:
    x = images(2, 3, height, width=width)
    torch.testing.assert_close(geometry.warp(x, geometry.identity(x)), x)
    moved = geometry.warp(
        x, geometry.shift(one(-3.0), one(2.0)).expand(2, 3, 3)
    )  # what is shown lies 3 left and 2 below
    torch.testing.assert_close(moved[:, :, :-2, 3:], x[:, :, 2:, :-3])
    torch.testing.assert_close(moved[:, :, :-2, :3], x[:, :, 2:, 1:4].flip(3))  # reflected


@pytest.mark.parametrize(
    "to_source",
    [
        geometry.rotate(one(0.4)),
        geometry.scale(one(1.3), one(0.8)),
        geometry.shift(one(0.37), one(-1.6)) @ geometry.rotate(one(2.0)) @ geometry.scale(one(0.9), one(1.2)),
    ],
)
def test_warps_of_a_smooth_picture_are_the_picture_warped(to_source: Tensor) -> None:
    """Against the same blob evaluated where the map leads, up to the bilinear step's error."""
    side = 32
    y = geometry.warp(smooth(side), to_source)
    at = torch.arange(side, dtype=torch.double) - (side - 1) / 2
    points = torch.stack([at.repeat(side), at.repeat_interleave(side), torch.ones(side * side, dtype=torch.double)])
    x, row = (to_source[0] @ points)[:2] + (side - 1) / 2
    expected = torch.exp(-(((x / side - 0.35) * 7) ** 2) - (((row / side - 0.6) * 9) ** 2)).view(1, 1, side, side)
    inside = ((x > 0) & (x < side - 1) & (row > 0) & (row < side - 1)).view(1, 1, side, side)
    assert (y - expected).abs()[inside].max() < 0.03
    assert expected[inside].max() > 0.5


def test_warps_have_second_derivatives() -> None:
    x = images(2, 1, 6).requires_grad_(True)
    to_source = geometry.rotate(torch.tensor([0.3, 2.0], dtype=torch.double)) @ geometry.scale(one(1.3), one(0.7))
    assert torch.autograd.gradcheck(lambda x: geometry.warp(x, to_source), x)
    assert torch.autograd.gradgradcheck(lambda x: geometry.warp(x, to_source).pow(3), x)


def test_blits_are_exact() -> None:
    x = images(1, 2, 16)
    uniform = torch.tensor([[0.0, 0.0, 0.5, 0.5]])  # mirrored, no turn, no shift
    chance = torch.zeros(1, 3)
    assert torch.equal(blit(x, ALWAYS, chance, uniform, uniform), x.flip(3))
    for quarter in range(4):
        uniform = torch.tensor([[0.9, quarter / 4 + 0.1, 0.5, 0.5]])
        assert torch.equal(blit(x, ALWAYS, chance, uniform, uniform), torch.rot90(x, quarter, (2, 3)))
    right_up = torch.tensor([[0.9, 0.0, 1.0, 0.0]])  # by an eighth: two pixels
    moved = blit(x, ALWAYS, chance, right_up, right_up)
    assert torch.equal(moved[:, :, :-2, 2:], x[:, :, 2:, :-2])
    assert torch.equal(moved, roll(x, torch.tensor([[2, -2]])))
    assert torch.equal(blit(x, ALWAYS * 0, chance, right_up, right_up), x)
    oblong = images(1, 1, 16, width=24)
    assert blit(oblong, ALWAYS, chance, torch.tensor([[0.9, 0.6, 0.5, 0.5]]), right_up).shape == oblong.shape


def test_geometry_follows_its_draws() -> None:
    """One transformation at a time: the matrix it should have, by the warp that is tested above."""
    x, never, now = images(1, 1, 16), 0.9, 0.0
    p = torch.tensor(0.5)
    amounts = {"uniform": torch.tensor([[0.7, 0.2]]), "normal": torch.tensor([[0.8, -1.1, 0.6, -0.3]])}
    size, stretch = 2 ** (0.2 * 0.8), 2 ** (0.2 * -1.1)
    expected = [
        geometry.scale(one(1 / size), one(1 / size)),
        geometry.rotate(one(0.4 * math.pi)),
        geometry.scale(one(1 / stretch), one(stretch)),
        geometry.rotate(one(-0.6 * math.pi)),
        geometry.shift(one(-0.6 * 16 / 8), one(0.3 * 16 / 8)),
    ]
    for which, to_source in enumerate(expected):
        chance = torch.full((1, 5), never)
        chance[0, which] = now
        shown = warped(x, p, chance, **amounts)
        torch.testing.assert_close(shown, geometry.warp(x, to_source), rtol=1e-4, atol=1e-5)
    assert torch.equal(warped(x, p, torch.full((1, 5), never), **amounts), x)


def test_a_turn_happens_as_often_as_the_others() -> None:
    """Either of two turns with 1 - sqrt(1 - p) each is some turn with probability p."""
    p, augment = 0.36, build_augment(AugmentSpec(name="ada", p=0.36, policy=["geometry"]))
    chance = augment.draw(20_000, generator(0, "a"))["geometry/chance"]
    turned = (chance[:, [1, 3]] < 1 - math.sqrt(1 - p)).any(1).float().mean().item()
    assert turned == pytest.approx(p, abs=0.015)


COLOUR = {"uniform": torch.tensor([[0.2, 0.7]]), "normal": torch.tensor([[0.9, -0.7, 0.4]])}


def recoloured(x: Tensor, *which: int, p: float = 0.5) -> Tensor:
    chance = torch.full((len(x), 5), 0.9)
    chance[:, list(which)] = 0.0
    return recolour(x, torch.tensor(p), chance, COLOUR["uniform"], COLOUR["normal"])


def test_colours_by_their_definitions() -> None:
    x = images(1, 3, 4)
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(recoloured(x), x)
    torch.testing.assert_close(recoloured(x, 0), x + 0.9 * 0.2, rtol=0, atol=1e-6)
    torch.testing.assert_close(recoloured(x, 1), x * 2 ** (0.5 * -0.7), rtol=0, atol=1e-6)
    torch.testing.assert_close(recoloured(x, 2), x - 2 * grey, rtol=0, atol=1e-6)  # mirrored in lightness, hue kept
    torch.testing.assert_close(recoloured(x, 4), grey + 2**0.4 * (x - grey), rtol=0, atol=1e-6)
    both = recoloured(x, 0, 1)
    torch.testing.assert_close(both, (x + 0.18) * 2**-0.35, rtol=0, atol=1e-6)  # in this order


def test_hue_turns_about_grey() -> None:
    x = images(1, 3, 4)
    y = recoloured(x, 3)
    torch.testing.assert_close(y.mean(1), x.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=0, atol=1e-6)
    off = x - x.mean(1, keepdim=True)
    turned = y - y.mean(1, keepdim=True)
    cosine = (off * turned).sum(1) / off.norm(dim=1) / turned.norm(dim=1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, math.cos(0.4 * math.pi)), rtol=0, atol=1e-5)


def test_grey_images_and_alpha() -> None:
    x = images(1, 1, 4)
    torch.testing.assert_close(recoloured(x, 0, 1), (x + 0.18) * 2**-0.35, rtol=0, atol=1e-6)
    torch.testing.assert_close(recoloured(x, 2), -x, rtol=0, atol=1e-6)
    torch.testing.assert_close(recoloured(x, 3, 4), x)
    rgba = images(1, 4, 4)
    y = recoloured(rgba, 0, 1, 2, 3, 4)
    assert torch.equal(y[:, 3], rgba[:, 3])
    torch.testing.assert_close(y[:, :3], recoloured(rgba[:, :3], 0, 1, 2, 3, 4))


def test_at_zero_nothing_is_done_and_at_p_a_share_of_p() -> None:
    x = images(2000, 1, 8).float()
    for p in (0.0, 0.3):
        augment = build_augment(AugmentSpec(name="ada", p=p, policy=["color"]))
        y = augment(x, augment.draw(len(x), generator(0, "a")))
        changed = (y != x).flatten(1).any(1).float().mean().item()
        # brightness, contrast, and inverted lightness half of the time; hue and saturation don't show in grey
        assert changed == pytest.approx(1 - (1 - p) ** 2 * (1 - p / 2), abs=0.04 if p else 0)


# strength


def strength(**fields: float) -> Strength:
    return Strength(AugmentSpec(name="ada", **fields))


def observed(of: Strength, *signs: float, first: int = 0, count: int = 10) -> list[float]:
    """p after each step in which `count` logits have that mean sign."""
    values = []
    for step, sign in enumerate(signs, first):
        positive = round(count * (1 + sign) / 2)
        logits = torch.cat([torch.full((positive,), 0.1), torch.full((count - positive,), -7.0)])
        of.observe(logits, step, World())
        values.append(of.p.item())
    return values


def test_p_moves_every_fourth_step_by_the_images_seen() -> None:
    of = strength(speed_kimg=0.4, target=0.5)
    assert observed(of, 1, 1, 1, 1, 1) == pytest.approx([0, 0, 0, 0.1, 0.1])
    assert observed(of, 1, 1, 1, first=5)[-1] == pytest.approx(0.2)
    assert observed(of, 0, 0, 0, 0, first=8)[-1] == pytest.approx(0.1)
    assert observed(of, 1, 0.6, 0.4, 0, first=12)[-1] == pytest.approx(0.1)  # right at the target
    assert observed(of, *[-1] * 12, first=16)[-1] == 0.0  # never below


def test_p_is_clamped_and_can_be_held() -> None:
    of = strength(speed_kimg=0.04, max_p=0.7, p=0.5)
    assert observed(of, *[1] * 8)[-1] == pytest.approx(0.7)
    held = strength(speed_kimg=0.0, p=0.25)
    assert observed(held, *[1] * 8) == [0.25] * 8


def test_p_follows_d_and_is_reported() -> None:
    """A D that learns to know its images drives p up; the p of a step is that of its statistics."""
    of = recipe(augment={"name": "ada", "speed_kimg": 0.1, "target": 0.0}, lr_d=2e-3, batch_size=8)
    learner = new_learner(of)
    rows = run_steps(learner, dataset(), 24)
    assert rows[0]["augment_p"] == 0
    assert rows[-1]["augment_p"] > 0.2
    assert rows[-1]["sign_real"] > 0
    assert learner.augment.strength.p.item() == pytest.approx(rows[-1]["augment_p"])


@pytest.mark.parametrize("augment", [{"name": "ada"}, {"name": "apa"}])
def test_training_goes_on_from_its_state_to_the_bit(augment: dict) -> None:
    """Also in the middle of the four steps after which p moves."""
    of = recipe(augment={**augment, "p": 0.3, "speed_kimg": 0.1}, loss={"r1": 1.0, "r1_interval": 2})
    whole, first, second = (new_learner(of) for _ in range(3))
    run_steps(whole, dataset(), 12)
    run_steps(first, dataset(), 6)
    second.load_state_dict(first.state_dict())
    run_steps(second, dataset(), 6, first=6)
    assert differing(flat(whole.state_dict()), flat(second.state_dict())) == []
    assert whole.state_dict()["augment"]["p"].item() != pytest.approx(0.3)


def test_without_a_sign_of_its_own_the_difference_counts() -> None:
    """Relative objectives may shift all logits: p must not follow that."""
    learner = new_learner(recipe(loss={"name": "relativistic"}, augment={"name": "ada"}))
    real, fake = torch.tensor([5.0, 6.0, 7.0, 8.0]), torch.tensor([6.0, 5.0, 9.0, 9.0])
    assert learner._adapt(real, fake, 0)["sign_real"].item() == pytest.approx(-0.5)
    learner = new_learner(recipe(augment={"name": "ada"}))
    assert learner._adapt(real, fake, 0)["sign_real"].item() == 1


def test_r1_is_taken_through_the_augmentation() -> None:
    """By hand: the gradient of D(augmented(x)) with respect to x. At p = 0 it is that without an augmentation."""
    fields = {"loss": {"r1": 2.0, "r1_interval": 1}}
    learner = new_learner(recipe(augment={"name": "ada", "p": 0.8}, **fields))
    twin = new_learner(recipe(augment={"name": "ada", "p": 0.8}, **fields))
    batch = dataset().images[:4]
    seen = []
    (term,) = learner.terms.all
    original = type(term).__call__
    type(term).__call__ = lambda self, view: seen.append(view) or original(self, view)
    try:
        rows = run_steps(learner, dataset(), 1)
    finally:
        type(term).__call__ = original
    x = seen[0].real.clone().requires_grad_(True)
    assert len(batch) == len(x)
    twin.D.train()
    twin.D(torch.zeros(8, 1, 32, 32))  # the power iteration of the first pass
    logits = twin.D(twin.augment(x, twin._draw("real", 0, 4)))
    (grad,) = torch.autograd.grad(logits.sum(), x)
    assert rows[0]["r1"] == pytest.approx(grad.square().sum((1, 2, 3)).mean().item(), rel=1e-4)
    plain = run_steps(new_learner(recipe(**fields)), dataset(), 3)
    at_zero = run_steps(new_learner(recipe(augment={"name": "ada", "speed_kimg": 0.0}, **fields)), dataset(), 3)
    for a, b in zip(plain, at_zero, strict=True):
        assert {name: b[name] for name in a} == pytest.approx(a, rel=1e-5)


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_images_are_augmented_in_full_precision(loss: str) -> None:
    """A warp is matrix products, which bf16 would make of eight bits."""
    learner = new_learner(recipe(augment={"name": "ada", "p": 0.5}, loss={"name": loss, "r1": 1.0}, precision="bf16"))
    original, seen = learner.augment, []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(original, name)

        def __call__(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), x.dtype))
            return original(x, params)

    learner.augment = Watched()
    run_steps(learner, dataset(), 1)
    assert len(seen) == (5 if loss == "relativistic" else 4)  # real, generated, the penalty's, G's; and real ones again
    assert set(seen) == {(False, torch.float32)}


def test_apa_shows_generated_images_as_real_ones() -> None:
    augment = Apa(AugmentSpec(name="apa", p=0.25))
    real, pseudo = torch.zeros(4000, 1, 2, 2), torch.ones(4000, 1, 2, 2)
    shown = augment.deceive(real, pseudo, augment.draw(4000, generator(0, "a")))
    assert shown.mean().item() == pytest.approx(0.25, abs=0.03)
    assert set(shown.flatten(1).mean(1).tolist()) == {0.0, 1.0}
    off = new_learner(recipe(augment={"name": "apa", "speed_kimg": 0.0}))
    none = new_learner(recipe())
    a, b = (run_steps(learner, dataset(), 2) for learner in (off, none))
    assert [row["loss_d"] for row in a] == [row["loss_d"] for row in b]
    half = run_steps(new_learner(recipe(augment={"name": "apa", "p": 0.5, "speed_kimg": 0.0})), dataset(), 2)
    assert half[0]["logits_fake"] == pytest.approx(b[0]["logits_fake"], abs=0.02)
    assert half[0]["logits_real"] != pytest.approx(b[0]["logits_real"], abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "diffaugment", "p": 0.2}, "diffaugment has no p; leave it out"),
        ({"name": "flips", "max_p": 0.2}, "flips has no max_p; leave it out"),
        ({"name": "ada", "policy": ["cutout"]}, 'ada has no "cutout"; expected some of: blit, geometry, color'),
        ({"name": "apa", "policy": ["color"]}, "apa has no policy; leave it out"),
        ({"name": "ada", "policy": ["blit", "blit"]}, "an effect is named twice"),
        ({"name": "ada", "p": 1.5}, "less than or equal to 1"),
    ],
)
def test_options_of_another_augmentation_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentSpec(**fields)


def test_flips_mirror_half_of_the_images() -> None:
    x = images(1000, 1, 4)
    augment = build_augment(AugmentSpec(name="flips", policy=["yflip"]))
    y = augment(x, augment.draw(1000, generator(0, "a")))
    upside_down = (y == x.flip(2)).flatten(1).all(1)
    assert ((y == x).flatten(1).all(1) | upside_down).all()
    assert upside_down.double().mean().item() == pytest.approx(0.5, abs=0.06)
