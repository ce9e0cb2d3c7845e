"""LPIPS against torch-fidelity's; path lengths and diversity against closed forms and torch-fidelity's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity.sample_similarity_lpips as referee
from stand_ins import Pixels, random_images
from tiny_gan import dataset, lively, pair
from torch import Tensor, nn
from torchvision.models import vgg16

from tlgan.errors import DataError, NotFound, SpecError
from tlgan.latent.projection import perceived, project
from tlgan.latent.space import Space
from tlgan.metrics.diversity import centre_rows, cluster_pairs, diversity
from tlgan.metrics.measure import measure
from tlgan.metrics.paths import OTHER_ENDS, STEP, Paths, ppl, slerp
from tlgan.metrics.perceptual import Lpips, open_distance
from tlgan.metrics.pictures import Generated
from tlgan.models import seeded
from tlgan.random import latents
from tlgan.sampling import to_uint8


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of random weights, and torch-fidelity's LPIPS with the same ones."""
    folder = tmp_path_factory.mktemp("lpips")
    with seeded(0), pytest.MonkeyPatch.context() as patch:
        trunk = vgg16(weights=None).eval()
        linear = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(Lpips.WIDTHS)}
        patch.setattr(referee, "torchvision_load_pretrained_vgg16", lambda: trunk)
        patch.setattr(referee, "load_state_dict_from_url", lambda *_, **__: linear)
        theirs = referee.SampleSimilarityLPIPS("lpips-vgg16")
    features = {name: t for name, t in trunk.state_dict().items() if name.startswith("features.")}
    torch.save(features, folder / "vgg16-00000000.pth")
    torch.save(linear, folder / "weights-vgg16-lpips.pth")
    return folder, theirs


def test_lpips_is_torch_fidelitys(lpips: tuple[Path, Any]) -> None:
    folder, theirs = lpips
    x, y = random_images(3, 1, channels=3, size=32).float(), random_images(3, 2, channels=3, size=32).float()
    ours = Lpips(folder)
    torch.testing.assert_close(ours(x, y), theirs(x, y), rtol=1e-4, atol=1e-6)
    assert torch.equal(ours(x, x), torch.zeros(3))
    assert Lpips(folder).protocol == ours.protocol
    grey = random_images(2, 3, size=32).float()
    torch.testing.assert_close(ours(grey, x[:2]), ours(grey.expand(-1, 3, -1, -1), x[:2]))


@pytest.mark.minutes
def test_a_projection_by_lpips_comes_nearer_by_lpips(lpips: tuple[Path, Any]) -> None:
    g = lively("dcgan", channels=3)
    between = perceived(Lpips(lpips[0]))
    with torch.no_grad():
        target = to_uint8(g(latents(77, 0, 1, g.latent_dim)))[0]
    found = project(g, target, steps=12, between=between)
    assert found.distances[-1] < found.start
    wanted = target[None].float() / 127.5 - 1
    with torch.no_grad():
        again = between(Space(g).images(found.code[None]), wanted)
    assert found.distances[-1] == pytest.approx(float(again), rel=1e-4)
    large = torch.rand(1, 3, 512, 512) * 2 - 1
    small = torch.nn.functional.avg_pool2d(large, 2)
    assert torch.equal(between(large, -large), between(small, -small))


def test_missing_lpips_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no file vgg16-\*\.pth") as caught:
        open_distance(f"lpips:{tmp_path}", Pixels())
    assert "weights-vgg16-lpips.pth" in str(caught.value.hint)
    torch.save({"features.0.bias": torch.zeros(64)}, tmp_path / "vgg16-1.pth")
    with pytest.raises(DataError, match="does not hold torchvision's VGG16"):
        open_distance(f"lpips:{tmp_path}", Pixels())
    with pytest.raises(SpecError, match="gives no distances between images"):
        open_distance("extractor", Pixels())


class Linear(nn.Module):
    """A generator that is a matrix: images [N, 1, 4, 4] of latents [N, 8]."""

    latent_dim = 8
    classes: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))

    def forward(self, z: Tensor) -> Tensor:
        return (z.double() @ self.matrix.double()).view(-1, 1, 4, 4)


class Euclid:
    """Squared distance of images in [-1, 1]."""

    protocol: dict[str, Any] = {"perceptual": "euclid"}  # noqa: RUF012

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x.double() - y.double()) / 127.5).square().sum((1, 2, 3))


def test_a_linear_generator_has_the_path_length_of_its_matrix() -> None:
    g = Linear()
    paths = Paths(Generated(g, 300, seed=4))  # type: ignore[arg-type]
    assert paths.space == "z"
    blocks = [paths.block(number) for number in (0, 1)]
    assert [len(block) for block in blocks] == [256, 44]
    assert paths.block(2) is None
    start, end = (torch.cat([block[:, part] for block in blocks]).double() for part in (slice(0, 8), slice(8, 16)))
    assert torch.equal(start.float(), latents(4, 0, 300, 8))
    assert torch.equal(end.float(), latents(4 ^ OTHER_ENDS, 0, 300, 8))
    # the derivative of slerp at its start is angle / sin(angle) * (unit vector scale: b - cos(angle) a)
    angle = torch.acos(torch.cosine_similarity(start, end))[:, None]
    along = angle / torch.sin(angle) * (end - torch.cos(angle) * start)
    expected = (along @ g.matrix.detach().double()).square().sum(1)
    lengths = torch.cat([paths.look(Euclid())(block)["lengths"] for block in blocks])
    torch.testing.assert_close(lengths, expected, rtol=5e-2, atol=0.5)
    assert lengths.mean().item() == pytest.approx(expected.mean().item(), rel=5e-3)


def test_styles_are_joined_by_straight_lines() -> None:
    G, _ = pair(arch="stylegan2", mapping_layers=2, max_width=16)
    paths = Paths(Generated(G.eval(), 8, seed=0))
    assert paths.space == "w"
    ends = paths.block(0)
    assert ends is not None
    a, b = G.styles(ends[:, :8]), G.styles(ends[:, 8:])
    pictures = [(G.synthesise(w) + 1) * 127.5 for w in (a, a + STEP * (b - a))]
    found = paths.look(Euclid())(ends)["lengths"]
    torch.testing.assert_close(found, (Euclid()(*pictures) / STEP**2).detach(), rtol=0.05, atol=1e-3)


def test_slerp_is_torch_fidelitys() -> None:
    from torch_fidelity.noise import batch_slerp_any

    a, b = (torch.randn(50, 16, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    for share in (0.3, STEP):
        torch.testing.assert_close(slerp(a, b, share), batch_slerp_any(a, b, share))


def test_ppl_leaves_out_the_tails() -> None:
    lengths = np.concatenate([np.full(982, 3.0), np.zeros(9), np.full(9, 1e9)])
    assert ppl(lengths[np.random.default_rng(0).permutation(1000)]) == 3.0
    assert ppl(np.array([5.0])) == 5.0
    with pytest.raises(DataError, match="expected finite numbers"):
        ppl(np.array([1.0, np.nan]))


def flat(*levels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)


class Levels:
    protocol: dict[str, Any] = {"perceptual": "levels"}  # noqa: RUF012

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean((1, 2, 3))


def test_diversity_is_the_mean_over_clusters_of_distances_within() -> None:
    centres = flat(10, 100, 200)
    fake = flat(8, 12, 20, 95, 105, 250)  # clusters {8, 12, 20}, {95, 105}, {250}: means 8, 10, and none
    pairs = cluster_pairs(Levels(), fake, centres)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 4), (0, 8), (0, 12), (1, 10)]
    assert diversity(pairs) == (8 + 10) / 2
    assert diversity(cluster_pairs(Levels(), flat(10, 10, 100, 100), centres)) == 0, "memorised"
    with pytest.raises(DataError, match="received none"):
        diversity(cluster_pairs(Levels(), flat(10, 100, 200), centres))


def test_large_sets_and_clusters_are_cut() -> None:
    assert centre_rows(10).tolist() == list(range(10))
    rows = centre_rows(5000)
    assert len(rows) == len(set(rows.tolist())) == 100
    assert centre_rows(5000).tolist() == rows.tolist()
    pairs = cluster_pairs(Levels(), flat(*range(80)), flat(0))
    assert len(pairs) == 50 * 49 / 2
    assert pairs[:, 1].max() == 49


def test_they_need_the_generator_itself(tmp_path: Path) -> None:
    images = random_images(40, 0, size=32)
    for name in ("ppl", "diversity"):
        with pytest.raises(SpecError, match="needs the generator"):
            measure([name], [images], dataset(), Pixels(), seed=0, training=dataset(), cache_dir=tmp_path)


def test_lpips_diversity_and_ppl_by_path(lpips: tuple[Path, Any], tmp_path: Path) -> None:
    G, _ = pair()
    values = measure(
        ["diversity", "ppl"],
        Generated(G.eval(), 24, seed=0),
        dataset(),
        Pixels(),
        seed=0,
        training=dataset(count=3),
        perceptual=f"lpips:{lpips[0]}",
        cache_dir=tmp_path,
    )
    assert all(value.value > 0 for value in values)
    assert [value.protocol["perceptual"] for value in values] == ["lpips 0.1 vgg16"] * 2
    assert values[0].protocol["samples_training"] == 3
    assert values[1].protocol["space"] == "z"
