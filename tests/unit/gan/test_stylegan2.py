"""StyleGAN2 against a second, literal computation of its formulas, and what styles add to training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_gan import dataset, differing, flat, new_learner, recipe, run_steps
from torch import Tensor

from tlgan.distributed import World
from tlgan.errors import SpecError
from tlgan.learners.styles import PathLength, style_inputs
from tlgan.learners.terms import View
from tlgan.models import fir, seeded
from tlgan.models.stylegan2 import Discriminator, Generator, widths
from tlgan.models.stylegan2_layers import minibatch_deviation
from tlgan.random import generator
from tlgan.recipe import Recipe
from tlgan.sampling import generate

SMALL: dict[str, Any] = {"resolution": 16, "channels": 3, "width": 4, "max_width": 8}


def trained(network: torch.nn.Module) -> Any:
    """In double, with no parameter left at zero."""
    network = network.double().eval()
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(0.3 * torch.randn(value.shape, generator=rng, dtype=torch.double))
    return network


@pytest.fixture(name="G")
def generator_fixture() -> Generator:
    with seeded(0):
        return trained(Generator(**SMALL, latent_dim=6, style_dim=5, mapping_layers=3))


@pytest.fixture(name="D")
def discriminator_fixture() -> Discriminator:
    with seeded(1):
        return trained(Discriminator(**SMALL))


def upfirdn(x: Tensor, *, up: int = 1, down: int = 1, before: int, after: int, gain: float = 1.0) -> Tensor:
    """Zeros between samples, zeros around, the filter as a sum over its sixteen taps, every `down`-th sample."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, h * up, w * up)
    y[:, :, ::up, ::up] = x
    y = F.pad(y, (before, after, before, after))
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    height, width = y.shape[2] - 3, y.shape[3] - 3
    total = sum(taps[i] * taps[j] * y[:, :, i : i + height, j : j + width] for i in range(4) for j in range(4))
    return (total * gain)[:, :, ::down, ::down]


def dense(layer: Any, x: Tensor, *, lr: float = 1.0, active: bool = False) -> Tensor:
    y = x @ (layer.weight * lr / math.sqrt(x.shape[1])).t() + layer.bias * lr
    return bent(y) if active else y


def bent(x: Tensor, gain: float = 1.0) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2) * gain


def styled(conv: Any, x: Tensor, w: Tensor, up: bool) -> Tensor:
    """Image by image, with the weights of that image: modulated, then demodulated."""
    rows = []
    for image, style in zip(x, dense(conv.affine, w), strict=True):
        weight = conv.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = F.conv2d(upfirdn(image[None], up=2, before=3, after=2, gain=4), weight.flip([2, 3]))
        else:
            y = F.conv2d(image[None], weight, padding=1)
        rows.append(y)
    return bent(torch.cat(rows) + conv.noise * conv.noise_strength + conv.bias[:, None, None])


def picture(layer: Any, x: Tensor, w: Tensor) -> Tensor:
    style = dense(layer.affine, w) / math.sqrt(x.shape[1])
    return torch.einsum("nihw,ci,ni->nchw", x, layer.weight[:, :, 0, 0], style) + layer.bias[:, None, None]


def test_g_is_what_the_paper_says(G: Generator) -> None:
    z = torch.randn(3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for layer in G.blocks["mapping"].layers:
        w = dense(layer, w, lr=0.01, active=True)
    x = G.blocks["b4"].const.expand(3, -1, -1, -1)
    image = None
    for name in ("b4", "b8", "b16"):
        block = G.blocks[name]
        if name != "b4":
            x = styled(block.conv0, x, w, up=True)
        x = styled(block.conv1, x, w, up=False)
        share = picture(block.to_image, x, w)
        image = share if image is None else upfirdn(image, up=2, before=2, after=1, gain=4) + share
    assert image is not None
    torch.testing.assert_close(G(z), image, rtol=1e-10, atol=1e-10)


def test_d_is_what_the_paper_says(D: Discriminator) -> None:
    x = torch.randn(8, 3, 16, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    shown = x

    def conv(layer: Any, x: Tensor) -> Tensor:
        weight = layer.weight / math.sqrt(layer.weight[0].numel())
        return F.conv2d(x, weight, layer.bias, padding=weight.shape[-1] // 2)

    x = bent(conv(D.blocks["b16"].from_image, x))
    for name in ("b16", "b8"):
        block = D.blocks[name]
        skip = conv(block.skip, upfirdn(x, down=2, before=1, after=1)) * math.sqrt(0.5)
        y = bent(conv(block.conv0, x))
        weight = block.conv1.weight / math.sqrt(block.conv1.weight[0].numel())
        y = F.conv2d(upfirdn(y, before=2, after=2), weight, block.conv1.bias, stride=2)
        x = bent(y, math.sqrt(0.5)) + skip
    head = D.blocks["b4"]
    plane = torch.empty(8, 1, 4, 4, dtype=torch.double)
    for i in range(2):  # groups are images i, i + 2, i + 4, i + 6
        deviation = x[i::2].var(0, correction=0).add(1e-8).sqrt().mean()
        plane[i::2] = deviation
    x = bent(conv(head.conv, torch.cat([x, plane], 1)))
    logits = dense(head.out, dense(head.dense, x.flatten(1), active=True))
    torch.testing.assert_close(D(shown), logits.flatten(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("count", "parts", "group"), [(8, 1, 4), (8, 2, 4), (6, 2, 3), (9, 1, 3), (2, 1, 2)])
@pytest.mark.parametrize("strided", [True, False])
def test_parts_of_a_batch_do_not_see_each_other(count: int, parts: int, group: int, strided: bool) -> None:
    x = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))
    whole = minibatch_deviation(x, parts, strided=strided)
    alone = torch.cat([minibatch_deviation(part, 1, strided=strided) for part in x.chunk(parts)])
    torch.testing.assert_close(whole, alone)
    assert len(whole[:, 3, 0, 0].unique()) == count // group


def test_resampling_keeps_flat_areas_and_total_brightness() -> None:
    x = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    flat_one = torch.ones(1, 1, 8, 8)
    assert torch.allclose(fir.upsample(flat_one)[:, :, 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
    assert torch.allclose(fir.downsample(flat_one)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
    padded = F.pad(x, (2, 2, 2, 2))
    assert fir.upsample(padded).sum().item() == pytest.approx(4 * x.sum().item())


def test_the_authors_widths() -> None:
    assert widths(256, 64, 512) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64}
    assert widths(1024, 32, 512)[1024] == 32
    G = Generator(resolution=256, channels=3, width=64, latent_dim=512)
    assert sum(p.numel() for p in G.parameters()) == 24_767_458
    assert (G.style_count, len(G.noise_sizes)) == (14, 13)
    D = Discriminator(resolution=256, channels=3, width=64)
    assert sum(p.numel() for p in D.parameters()) == 24_001_089


def test_truncation_leads_to_the_average_style(G: Generator) -> None:
    z = torch.randn(4, 6, dtype=torch.double)
    average = G.blocks["mapping"].average.expand(4, G.style_count, -1)
    torch.testing.assert_close(G.truncated(z, 0.0), G.synthesise(average))
    torch.testing.assert_close(G.truncated(z, 1.0), G(z))
    half = torch.lerp(average, G.styles(z), 0.5)
    torch.testing.assert_close(G.truncated(z, 0.5), G.synthesise(half))
    one = generate(G.float(), 3, truncation=0.0)
    assert torch.equal(one[0], one[1])
    with pytest.raises(SpecError, match="truncation: expected a number from 0 to 1"):
        generate(G, 1, truncation=1.5)


def test_the_average_style_follows_training() -> None:
    G = Generator(**SMALL, latent_dim=6)
    z = torch.randn(64, 6)
    for _ in range(2000):
        G.styles(z)
    torch.testing.assert_close(G.blocks["mapping"].average, G.eval().styles(z)[:, 0].mean(0), rtol=1e-3, atol=1e-4)


def test_mixing_takes_the_other_styles_from_the_cut_on(G: Generator) -> None:
    a, b = torch.randn(2, 3, 6, dtype=torch.double).unbind()
    last = G.style_count
    cut = torch.tensor([0, 2, last])
    styles = [G.styles(b)[0], torch.cat([G.styles(a)[1, :2], G.styles(b)[1, 2:]]), G.styles(a)[2]]
    torch.testing.assert_close(G(a, mixed=b, cut=cut), G.synthesise(torch.stack(styles)))


def styled_recipe(**train: Any) -> Recipe:
    loss = {"r1": 0.1, "r1_interval": 2, "path_length": 2.0, "path_length_interval": 2}
    return recipe(model={"arch": "stylegan2", "mapping_layers": 2, "max_width": 8}, loss=loss, **train)


def test_inputs_are_drawn_for_the_global_batch() -> None:
    of = styled_recipe(style_mixing=0.5)
    G = new_learner(of).G
    whole = style_inputs(G, of, World(), 3, 400)
    assert [tuple(plane.shape[2:]) for plane in whole["noise"]] == G.noise_sizes
    unmixed = (whole["cut"] == G.style_count).float().mean().item()
    assert 0.4 < unmixed < 0.6
    assert whole["cut"].min() == 1
    for rank in (0, 1):
        own = style_inputs(G, of, World(rank, 2), 3, 200)
        rows = slice(200 * rank, 200 * rank + 200)
        assert torch.equal(own["mixed"], whole["mixed"][rows])
        assert all(torch.equal(a, b[rows]) for a, b in zip(own["noise"], whole["noise"], strict=True))
    assert "mixed" not in style_inputs(G, styled_recipe(style_mixing=0.0), World(), 3, 2)


def test_path_length_of_a_linear_synthesis() -> None:
    """Images that are A w: the length is |A^T y| / sqrt(pixels), whatever w is."""
    A = torch.randn(16, 5, dtype=torch.float, generator=torch.Generator().manual_seed(0)).requires_grad_(True)

    class Linear:
        def styles(self, z: Tensor, labels: None = None) -> Tensor:
            return (z * 1.0)[:, None]

        def synthesise(self, styles: Tensor, noise: Any) -> Tensor:
            return (styles[:, 0] @ A.t()).view(-1, 1, 4, 4)

    term = PathLength(styled_recipe(), World())
    z = torch.randn(6, 5).requires_grad_(True)
    images = torch.zeros(6, 1, 4, 4)
    made = {"real": images, "fake": images, "shown_fake": images, "logits_fake": torch.zeros(6)}
    penalty = term(View(step=0, G=Linear(), D=None, z=z, inputs={"noise": []}, **made))
    y = torch.randn(3, 1, 4, 4, generator=generator(0, "path length", 0)).view(3, 16) / 4
    lengths = (y @ A).norm(dim=1)
    mean = 0.01 * lengths.mean()
    torch.testing.assert_close(term.mean, mean.detach())
    torch.testing.assert_close(penalty, (lengths - mean.detach()).square().mean() * 2.0)
    penalty.backward()
    assert A.grad is not None
    assert A.grad.abs().sum() > 0


def test_training_goes_on_from_its_state_to_the_bit() -> None:
    whole, first = new_learner(styled_recipe()), new_learner(styled_recipe())
    rows = run_steps(whole, dataset(), 6)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert {"path_length" in row for row in rows} == {True, False}
    run_steps(first, dataset(), 3)
    second = new_learner(styled_recipe(seed=5).model_copy(update={"train": styled_recipe().train}))
    second.load_state_dict(first.state_dict())
    run_steps(second, dataset(), 3, first=3)
    assert differing(flat(whole.state_dict()), flat(second.state_dict())) == []
    assert first.state_dict()["path_length"]["mean"] > 0


def test_half_precision_stays_near() -> None:
    rows = {
        precision: run_steps(new_learner(styled_recipe(precision=precision)), dataset(), 3)
        for precision in ("fp32", "bf16")
    }
    for full, half in zip(rows["fp32"], rows["bf16"], strict=True):
        assert half["loss_d"] == pytest.approx(full["loss_d"], rel=0.1)
        assert half["loss_g"] == pytest.approx(full["loss_g"], rel=0.1)


def test_options_of_another_family_are_refused() -> None:
    for model, field in (
        ({"arch": "dcgan", "style_dim": 8}, "style_dim"),
        ({"arch": "stylegan2", "spectral_norm": True}, "spectral_norm"),
    ):
        with pytest.raises(ValueError, match=f"has no {field}; leave it out"):
            recipe(model=model)
    with pytest.raises(ValueError, match="path_length is for networks with styles; dcgan has none"):
        recipe(loss={"path_length": 1.0})
