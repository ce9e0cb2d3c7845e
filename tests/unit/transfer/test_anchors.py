"""Anchors of weights, logits and features against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_gan import dataset, new_learner, recipe, run_steps
from torch import Tensor, nn

from tlgan.data.loader import Batch
from tlgan.distributed import World
from tlgan.learners.terms import View
from tlgan.losses.lecam import LeCam
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.transfer.anchors import WeightAnchor
from tlgan.transfer.cdc import Distances, PatchTerm, log_nearness
from tlgan.transfer.ewc import of_mean_one
from tlgan.transfer.feature_distillation import KeptFeatures
from tlgan.transfer.feature_matching import MeanFeatures
from tlgan.transfer.fisher import discriminator_fisher, fisher, generator_fisher


def view(**given: Any) -> View:
    images = torch.zeros(4, 1, 2, 2)
    fields: dict[str, Any] = {"step": 0, "G": None, "D": None, "real": images, "fake": images, "inputs": {}}
    fields |= {"z": torch.zeros(4, 2), "shown_fake": images, "logits_fake": torch.zeros(4)}
    return View(**{**fields, **given})


class Doubling(Network):
    """Two blocks: `factor * x`, and what is left is summed to a logit an image."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.config = {}
        self.blocks = nn.ModuleDict({"b8": Times(factor), "b4": nn.Flatten()})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.values():
            x = block(x)
        return x.sum(1)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_weight_anchor_is_the_weighted_square_of_the_way_gone() -> None:
    network = Doubling(2.0)
    name = "blocks.b8.factor"
    plain_anchor = WeightAnchor("l2_sp_g", "G", network, 0.5)
    weighted = WeightAnchor("ewc", "G", network, 0.5, {name: torch.tensor(3.0)})
    assert plain_anchor(view(G=network)).item() == 0
    network.blocks["b8"].factor.data += 0.4
    assert plain_anchor(view(G=network)).item() == pytest.approx(0.5 * 0.4**2)
    value = weighted(view(G=network))
    assert value.item() == pytest.approx(0.5 * 3 * 0.4**2)
    value.backward()
    assert network.blocks["b8"].factor.grad.item() == pytest.approx(2 * 0.5 * 3 * 0.4)


def test_a_weight_anchor_holds_what_trains_only() -> None:
    network = Doubling(2.0).requires_grad_(False)
    assert WeightAnchor("l2_sp_d", "D", network, 1.0).anchors == {}


def test_fisher_of_a_normal_distribution() -> None:
    """Of the mean of N(m, s^2): (x - m)^2 / s^4 a sample, the mean of squares and not the square of the mean."""
    x, m = torch.tensor([1.0, -2.0, 4.0, 0.5]), torch.tensor(0.5, requires_grad=True)
    untouched, s = torch.ones(2, requires_grad=True), 1.5
    found = fisher(lambda i: -((x[i] - m) ** 2) / (2 * s**2), {"m": m, "untouched": untouched}, range(4), World())
    assert found["m"].item() == pytest.approx(((x - 0.5) ** 2).mean().item() / s**4)
    assert found["untouched"].tolist() == [0, 0]


def test_fisher_of_a_generator() -> None:
    """G(z) = a sum(z), D(x) = b x: d log sigmoid(a b s) / da = sigmoid(-a b s) b s."""

    class Line(Doubling):
        latent_dim = 3

        def forward(self, z: Tensor) -> Tensor:
            return self.blocks["b8"](z)

    a, b = 0.7, 1.3
    G, D = Line(a), Doubling(b)
    found = generator_fisher(G, D, {"blocks.b8.factor"}, 50, seed=3, world=World())
    s = latents(3, 0, 50, 3).sum(1).numpy().astype(np.float64)
    expected = (b * s / (1 + np.exp(a * b * s))) ** 2
    assert found["blocks.b8.factor"].item() == pytest.approx(expected.mean(), rel=1e-5)
    assert all(p.requires_grad and p.grad is None for net in (G, D) for p in net.parameters())


def test_fisher_of_a_discriminator() -> None:
    """D(x) = b x told real ones from G(z) = a sum(z): sigmoid(-b x) x - sigmoid(b a s) a s, squared, by sample."""

    class Line(Doubling):
        latent_dim = 3

        def forward(self, z: Tensor) -> Tensor:
            return self.blocks["b8"](z)

    a, b = 0.7, 1.3
    x = torch.tensor([[0.5], [-1.0], [2.0], [3.0]])
    batch = Batch(x, torch.full((4,), -1), torch.arange(4))
    found = discriminator_fisher(Line(a), Doubling(b), {"blocks.b8.factor"}, batch, 3, seed=5, world=World())
    s = latents(5, 0, 3, 3).sum(1).numpy().astype(np.float64)
    real = x[:3, 0].numpy().astype(np.float64)
    slopes = real / (1 + np.exp(b * real)) - a * s / (1 + np.exp(-b * a * s))
    assert found["blocks.b8.factor"].item() == pytest.approx((slopes**2).mean(), rel=1e-5)


def test_information_has_a_mean_of_one_over_all_parameters() -> None:
    scaled = of_mean_one({"a": torch.tensor([1e-9, 3e-9]), "b": torch.tensor([[5e-9]])})
    assert scaled["a"].tolist() == pytest.approx([1 / 3, 1.0])
    assert scaled["b"].item() == pytest.approx(5 / 3)
    assert of_mean_one({"a": torch.zeros(2)})["a"].tolist() == [0, 0]


def test_lecam_is_the_papers_formula_with_averages_of_the_steps_before() -> None:
    term = LeCam(0.3, 0.9, World())
    batches = [
        (torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0])),
        (torch.tensor([2.0, 6.0]), torch.tensor([1.0, 2.0])),
    ]
    real_average, fake_average = 2.0, -0.5
    for real, fake in batches:
        real.requires_grad_(True)
        value = term(view(logits_real=real, logits_fake=fake))
        expected = ((real - fake_average) ** 2).mean() + ((fake - real_average) ** 2).mean()
        assert value.item() == pytest.approx(0.3 * expected.item(), rel=1e-6)
        value.backward()
        torch.testing.assert_close(real.grad, 0.3 * (real.detach() - fake_average))
        real_average = 0.9 * real_average + 0.1 * real.mean().item()
        fake_average = 0.9 * fake_average + 0.1 * fake.mean().item()
    assert term.state_dict()["averages"].tolist() == pytest.approx([real_average, fake_average])


def test_lecam_serves_pretraining_and_goes_on_where_it_was() -> None:
    of = recipe(loss={"lecam": 0.1, "lecam_decay": 0.8})
    whole, first, second = new_learner(of), new_learner(of), new_learner(of)
    rows = run_steps(whole, dataset(), 4)
    assert all(row["lecam"] > 0 for row in rows)
    assert rows[0]["loss_d"] == run_steps(new_learner(recipe()), dataset(), 1)[0]["loss_d"]  # reported apart
    run_steps(first, dataset(), 2)
    second.load_state_dict(first.state_dict())
    assert run_steps(second, dataset(), 2, first=2) == rows[2:]


def test_mean_features_of_a_batch() -> None:
    """Of a block that doubles: |2 mean(real) - 2 mean(fake)|^2, a mean over pixels."""
    real = torch.tensor([1.0, 3.0])[:, None, None, None].expand(2, 1, 2, 2)
    fake = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 2, 2).clone().requires_grad_(True)
    value = MeanFeatures(Doubling(2.0).requires_grad_(False), 0.5, World())(view(real=real, fake=fake))
    assert value.item() == pytest.approx(0.5 * (2 * 2 - 2 * 0.5) ** 2)
    value.backward()
    torch.testing.assert_close(
        fake.grad, torch.full((2, 1, 2, 2), -0.5 * 2 * 3.0 / 4)
    )  # d/dx of w (c - x)^2, shared by 4 pixels


def test_kept_features_are_the_sources() -> None:
    source = Doubling(2.0).requires_grad_(False)
    images = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 1, 2, 2)
    features = torch.cat([images, images]) * 2.5
    term = KeptFeatures(source, 0.1)
    assert term.taps == ["D.b8"]
    value = term(view(shown_real=images, shown_fake=images, features={"D.b8": features}))
    assert value.item() == pytest.approx(0.1 * (0.5**2) * (1 + 4) / 2)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def nearness(rows: np.ndarray) -> np.ndarray:
    """`[4, 3]`: softmax over the other three."""
    found = []
    for i in range(4):
        similar = np.exp([cosine(rows[i], rows[j]) for j in range(4) if j != i])
        found.append(similar / similar.sum())
    return np.array(found)


def test_distances_within_groups_of_four() -> None:
    maps = torch.randn(9, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = log_nearness(maps).exp()
    assert found.shape == (8, 3)  # the ninth is in no full group
    for group in range(2):
        rows = maps[4 * group : 4 * group + 4].flatten(1).numpy().astype(np.float64)
        np.testing.assert_allclose(found[4 * group : 4 * group + 4], nearness(rows), rtol=1e-5)
    assert log_nearness(maps[:2]).tolist() == [[0.0], [0.0]]  # one other image is all there is


def test_distances_are_a_divergence_from_the_source() -> None:
    source = Doubling(2.0).requires_grad_(False)
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    own = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    term = Distances(source, 10.0)
    assert term.taps == ["G.b8", "G.b4"]
    same = dict.fromkeys(term.taps, 2 * z)
    assert term(view(G=source, z=z, features=same)).item() == pytest.approx(0, abs=1e-6)
    p, q = (nearness(x.numpy().astype(np.float64)) for x in (own, z))
    expected = (p * np.log(p / q)).sum(1).mean()
    value = term(view(G=source, z=z, features={"G.b8": own, "G.b4": 2 * z}))
    assert value.item() == pytest.approx(10 * expected / 2, rel=1e-4)


def test_patches_are_judged_by_the_same_objective() -> None:
    critic = Doubling(1.0)
    critic.heads = nn.ModuleDict({"patch": nn.Flatten(0)})
    maps = torch.tensor([[2.0, -1.0], [0.5, 0.0]])  # an image that is real, and one that is not, of two patches each
    d = PatchTerm("D", "nonsaturating", "b8")(view(D=critic, features={"D.b8": maps}))
    softplus = [math.log1p(math.exp(x)) for x in (-2.0, 1.0, 0.5, 0.0)]
    assert d.item() == pytest.approx(sum(softplus[:2]) / 2 + sum(softplus[2:]) / 2)
    g = PatchTerm("G", "nonsaturating", "b8")(view(D=critic, features={"D.b8": maps[1:]}))
    assert g.item() == pytest.approx((math.log1p(math.exp(-0.5)) + math.log(2)) / 2)
