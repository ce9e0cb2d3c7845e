"""Loops, mixtures, directions, projection and blending, on small networks of every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_gan import lively, pair

from tlgan.errors import SpecError
from tlgan.latent.blending import blend, relationship
from tlgan.latent.directions import directions, edits, reading_matrix
from tlgan.latent.loops import closed_curve, loop
from tlgan.latent.mixing import mixing_sheet, mixing_table
from tlgan.latent.projection import distance, project
from tlgan.latent.space import Space, of_class
from tlgan.models import build_pair
from tlgan.random import latents
from tlgan.recipe import ModelSpec
from tlgan.registry import ARCHS
from tlgan.sampling import to_uint8

FAMILIES = list(ARCHS)


def test_a_closed_curve_passes_its_knots_smoothly() -> None:
    knots = torch.randn(5, 3, dtype=torch.float64)
    steps = 400
    path = closed_curve(knots, steps)
    torch.testing.assert_close(path[::steps], knots)
    speed = (path.roll(-1, 0) - path) * steps
    jumps = (speed - speed.roll(1, 0)).norm(dim=1)
    assert jumps.max() < 0.01 * speed.norm(dim=1).max() * 10 / 4, "no kink, at the seam either"
    tangent = (knots.roll(-1, 0) - knots.roll(1, 0)) / 2
    torch.testing.assert_close(speed[::steps], tangent, rtol=0.05, atol=0.05)


def test_a_curve_through_a_circle_stays_near_it() -> None:
    angle = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    path = closed_curve(torch.stack([angle.cos(), angle.sin()], 1), 10)
    torch.testing.assert_close(path.norm(dim=1), torch.ones(80, dtype=torch.float64), rtol=0, atol=0.01)


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_loop_goes_through_the_images_of_its_seed(arch: str) -> None:
    g = lively(arch)
    frames = torch.cat(list(loop(g, 12, 3, seed=4)))
    assert frames.shape == (12, 1, 32, 32)
    with torch.no_grad():
        ends = to_uint8(g(latents(4, 0, 3, g.latent_dim)))
    assert (frames[::4].int() - ends.int()).abs().max() <= 1
    assert torch.equal(frames, torch.cat(list(loop(g, 12, 3, seed=4))))
    assert len(torch.cat([*loop(g, 12, 3, seed=4, truncation=0.0)]).unique(dim=0)) == 1


@pytest.mark.parametrize(("frames", "ends"), [(4, 2), (10, 3), (2, 3)])
def test_loops_that_cannot_be_are_refused(frames: int, ends: int) -> None:
    with pytest.raises(SpecError, match="a loop needs"):
        list(loop(lively("dcgan"), frames, ends))


def test_mixtures_take_coarse_and_fine_styles_from_two_images() -> None:
    g = lively("stylegan2")
    left, top, inner = mixing_table(g, "b16", 2, 3, seed=1)
    assert (left.shape[0], top.shape[0], inner.shape[0]) == (2, 3, 6)
    styles = g.styles(latents(1, 0, 5, g.latent_dim))
    position = 1 + 2  # b4 has one convolution, b8 two
    expected = torch.cat([styles[1:2, :position], styles[3:4, position:]], 1)
    assert torch.equal(inner[3 + 1], to_uint8(g.synthesise(expected))[0])
    whole, _, taken = mixing_table(g, "b4", 2, 3, seed=1)
    assert torch.equal(taken[:3], mixing_table(g, "b4", 2, 3, seed=1)[1]), (
        "from the first level on, all is the column's"
    )
    assert torch.equal(whole, left)
    sheet = mixing_sheet(left, top, inner)
    assert sheet.shape[0] == 3 * 4
    assert torch.equal(sheet[4 + 1 + 2], inner[2])
    assert torch.equal(sheet[8], left[1])


def test_mixing_needs_styles_and_a_level() -> None:
    with pytest.raises(SpecError, match="needs a network with styles"):
        mixing_table(lively("dcgan"), "b16", 2, 2)
    with pytest.raises(SpecError, match='there is no level "b64"; expected one of: b4, b8, b16, b32'):
        mixing_table(lively("stylegan2"), "b64", 2, 2)


@pytest.mark.parametrize("arch", FAMILIES)
def test_directions_are_the_singular_vectors_of_what_reads_the_code(arch: str) -> None:
    g = lively(arch)
    matrix = reading_matrix(g)
    assert matrix.shape[1] == Space(g).dim
    found, gains = directions(g, 4)
    _, singular, rows = torch.linalg.svd(matrix.double(), full_matrices=False)
    torch.testing.assert_close(gains.double(), singular[:4].square(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        (found.double() * rows[:4]).sum(1).abs(), torch.ones(4, dtype=torch.float64), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(found @ found.T, torch.eye(4), atol=1e-4, rtol=0)
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_latent_is_multiplied_by_that_matrix(arch: str) -> None:
    """The response of the reading layer to a step along direction n grows by |A n|, whatever the other layers do."""
    g = lively(arch)
    seen: list[torch.Tensor] = []
    first = next(m for m in g.modules() if hasattr(m, "affine")).affine if Space(g).name == "w" else None
    layer: Any = first or next(m for m in g.modules() if type(m).__name__ in ("PointToMap", "Linear"))
    hook = layer.register_forward_hook(lambda module, given, out: seen.append(out.flatten(1)))
    space = Space(g)
    code = space.codes(latents(0, 0, 1, g.latent_dim))
    direction = directions(g, 1, ["b4"] if first else None)[0]
    matrix = layer.weight.flatten(1).T if type(layer).__name__ == "PointToMap" else layer.weight.flatten(1)
    seen.clear()
    space.images(code), space.images(code + direction)
    hook.remove()
    grown = (seen[1] - seen[0]).norm()
    scale = 1 / matrix.shape[1] ** 0.5 if first else 1.0  # equalised layers scale their weights
    torch.testing.assert_close(grown, (matrix @ direction[0]).norm() * scale, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("arch", FAMILIES)
def test_edits_have_the_image_in_their_middle(arch: str) -> None:
    g = lively(arch)
    found, _ = directions(g, 2)
    images = edits(g, found, 1.0, 5, seed=3).unflatten(0, (2, 5))
    with torch.no_grad():
        image = to_uint8(Space(g).images(Space(g).codes(latents(3, 0, 1, g.latent_dim))))[0]
    assert all((row[2].int() - image.int()).abs().max() <= 1 for row in images)
    assert (images[0, 0].int() - images[0, 4].int()).abs().max() > 0


def test_levels_move_only_their_own_styles() -> None:
    g = lively("stylegan2")
    found, _ = directions(g, 1, ["b32"])
    with pytest.raises(SpecError, match="no level"):
        directions(g, 1, ["b33"])
    with pytest.raises(SpecError, match="reads its latents once"):
        directions(lively("resnet"), 1, ["b8"])
    with pytest.raises(SpecError, match="1 to 8 directions"):
        directions(g, 9)
    seen: list[torch.Tensor] = []
    hook = g.blocks["b8"].register_forward_hook(lambda module, given, out: seen.append(out[0]))
    edits(g, found, 1.0, 3, levels=["b32"])
    hook.remove()
    assert torch.equal(seen[0][0], seen[0][2])


@pytest.mark.parametrize("arch", FAMILIES)
def test_projection_finds_an_image_that_the_generator_drew(arch: str) -> None:
    """A known answer: the distance falls to a small share of the nearest random image's."""
    g = lively(arch)
    space = Space(g)
    with torch.no_grad():
        target = to_uint8(space.images(space.codes(latents(77, 0, 1, g.latent_dim))))[0]
    heard: list[float] = []
    found = project(g, target, steps=60, seed=0, stages=4, advance=heard.append)
    assert found.distances[-1] < 0.5 * found.start
    assert found.distances == sorted(found.distances, reverse=True)
    assert (len(found.distances), len(heard), len(found.stages)) == (60, 60, 4)
    assert found.code.shape == (space.dim,)
    with torch.no_grad():
        assert torch.equal(to_uint8(space.images(found.code[None]))[0], found.image)
    again = project(g, target, steps=5, seed=0)
    assert torch.equal(again.code, project(g, target, steps=5, seed=0).code)


def test_projection_wants_the_generators_size() -> None:
    with pytest.raises(SpecError, match=r"draws 1x32x32 .* received an image of 3x32x32"):
        project(lively("dcgan"), torch.zeros(3, 32, 32, dtype=torch.uint8), steps=1)


def test_the_distance_weighs_every_level_of_the_pyramid() -> None:
    x, y = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    assert float(distance(x, y)) == pytest.approx(1.0)
    checks = torch.ones(1, 1, 16, 16)
    checks[..., ::2] = -1
    assert float(distance(x, checks)) == pytest.approx(1 / 3), "halved images of stripes are grey"


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_blend_has_the_blocks_of_both(arch: str) -> None:
    a, b = lively(arch), pair(arch, seed=1)[0].eval()
    mixed = blend(a, b, "b16")
    for name, tensor in mixed.state_dict().items():
        coarse = name.split(".")[1] in ("mapping", "b4", "b8")
        assert torch.equal(tensor, (a if coarse else b).state_dict()[name]), name
    assert relationship(a, a) == pytest.approx(1.0)
    assert abs(relationship(a, b)) < 0.3
    seen: list[torch.Tensor] = []
    for network in (a, mixed):
        hook = network.blocks["b8"].register_forward_hook(lambda module, given, out: seen.append(out))
        network(latents(0, 0, 2, a.latent_dim))
        hook.remove()
    torch.testing.assert_close(seen[0], seen[1])


def test_blends_of_strangers_are_refused() -> None:
    with pytest.raises(SpecError, match="built differently: dcgan and dcgan, width 4 and 8"):
        blend(pair("dcgan")[0], pair("dcgan", width=8)[0], "b16")
    with pytest.raises(SpecError, match='received "b17"'):
        blend(pair("dcgan")[0], pair("dcgan", seed=1)[0], "b17")
    with pytest.raises(SpecError, match='received "b4"'):
        blend(pair("dcgan")[0], pair("dcgan", seed=1)[0], "b4")


@pytest.mark.parametrize("arch", FAMILIES)
def test_one_class_of_a_conditional_generator(arch: str) -> None:
    plain = pair(arch)[0]
    spec = ModelSpec.model_validate({"arch": arch, "resolution": 32, "width": 4, "latent_dim": 8, "conditional": True})
    G = build_pair(spec, 1, 0, classes={"a": 3, "b": 5})[0].eval().requires_grad_(False)
    g = of_class(G, "b")
    z = latents(0, 0, 2, G.latent_dim)
    assert torch.equal(Space(g).images(Space(g).codes(z)), G(z, labels=torch.tensor([1, 1])))
    assert directions(g, 2)[0].shape == (2, Space(g).dim)
    assert len(torch.cat(list(loop(g, 3, 3)))) == 3
    assert of_class(plain, None) is plain
    with pytest.raises(SpecError, match="is conditional; expected a class"):
        of_class(G, None)
    with pytest.raises(SpecError, match="expected one of: a, b"):
        of_class(G, "c")
