"""What every network of the table promises with classes: labels decide, are stored, and go over to a child by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from test_networks import awake
from tiny_gan import CLASSES, LATENT_DIM, dataset, differing, new_learner, pair, recipe, run_steps
from torch import Tensor

from jobs.pin import check_fit
from tlgan import registry
from tlgan.artifact import describe, load_network, save_networks
from tlgan.data import Dataset
from tlgan.errors import SpecError
from tlgan.metrics.paths import Paths
from tlgan.metrics.pictures import Generated
from tlgan.models.blocks import Network
from tlgan.models.labels import ClassTable
from tlgan.recipe import Recipe
from tlgan.sampling import draw, generate, interpolate, labels_of
from tlgan.transfer import start_from

ARCHS = list(registry.ARCHS)
ROLES = ["G", "D"]
LABELS = torch.tensor([0, 1, 1])


def network(arch: str, role: str, **model: object) -> Network:
    G, D = pair(arch, 1, conditional=True, **model)
    return awake(G if role == "G" else D)


def inputs(role: str, count: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn((count, LATENT_DIM) if role == "G" else (count, 1, 32, 32), generator=rng).clamp(-1, 1)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("arch", ARCHS)
class TestEveryNetwork:
    def test_labels_decide(self, arch: str, role: str) -> None:
        net, x = network(arch, role).eval(), inputs(role)
        y, other = net(x, labels=LABELS), net(x, labels=1 - LABELS)
        assert len(y) == 3
        assert ((y - other).reshape(3, -1).abs().amax(1) > 1e-6).all()
        again = net(x, labels=torch.tensor([0, 1, 0]))
        torch.testing.assert_close(again[:2], y[:2])  # a label says nothing about other images

    def test_labels_are_asked_for_and_only_where_they_belong(self, arch: str, role: str) -> None:
        with pytest.raises(SpecError, match=rf"{arch} {role}: expected labels \[N\].*; received none"):
            network(arch, role)(inputs(role))
        plain = pair(arch, 1)[ROLES.index(role)]
        with pytest.raises(SpecError, match="expected no labels, for it is not conditional; received labels"):
            plain(inputs(role), labels=LABELS)

    def test_backward_reaches_every_parameter(self, arch: str, role: str) -> None:
        net = network(arch, role)
        net(inputs(role), labels=LABELS).square().sum().backward()
        assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_blocks_are_those_without_classes(self, arch: str, role: str) -> None:
        net, plain = network(arch, role), pair(arch, 1)[ROLES.index(role)]
        assert list(net.blocks) == list(plain.blocks)
        assert len(net.blocks) == registry.blocks_at(32, arch, role)
        assert [name for name in net.state_dict() if not name.startswith("blocks.")] == []

    def test_saved_and_loaded_with_its_classes(self, arch: str, role: str, tmp_path: Path) -> None:
        net = network(arch, role)
        save_networks(tmp_path, {role: net}, type="gan")
        loaded = load_network(tmp_path, role)
        assert differing(dict(net.state_dict()), dict(loaded.state_dict())) == []
        assert loaded.classes == list(CLASSES) == describe(tmp_path)["networks"][role]["config"]["classes"]
        x = inputs(role)
        assert torch.equal(loaded(x, labels=LABELS), load_network(tmp_path, role)(x, labels=LABELS))


@pytest.mark.parametrize("arch", ARCHS)
def test_a_child_takes_over_classes_by_name(arch: str, tmp_path: Path) -> None:
    G, D = (awake(net) for net in pair(arch, 1, conditional=True))
    save_networks(tmp_path, {"G_ema": G, "D": D}, type="gan")
    of = recipe(model={"arch": arch, "conditional": True}, transfer={"method": "finetune"})
    start = start_from(tmp_path, of, 1, {"new": 3, "right": 5, "left": 1})
    assert start.G.classes == ["new", "right", "left"]
    assert start.G.config["class_counts"] == [3, 5, 1]
    assert start.coverage.missing["G"] == start.coverage.missing["D"] == []
    z = inputs("G")
    old, new = G.eval()(z, labels=torch.tensor([1, 0, 1])), start.G.eval()(z, labels=torch.tensor([1, 2, 1]))
    tables = [module for module in start.G.modules() if isinstance(module, ClassTable)]
    for table in tables:
        torch.testing.assert_close(table.weight[0], table.weight[1:].mean(0))
    torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
    same = start_from(tmp_path, of, 1, CLASSES)
    assert differing(dict(same.G.state_dict()), dict(G.state_dict())) == []


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("loss", [{"name": "nonsaturating", "gp": 1.0}, {"name": "relativistic", "r1": 1.0, "r2": 1.0}])
def test_training_with_labels(arch: str, loss: dict) -> None:
    learner = new_learner(recipe(model={"arch": arch, "conditional": True}, loss=loss))
    before = {name: value.clone() for name, value in learner.D.state_dict().items()}
    rows = run_steps(learner, dataset(labels=True), 2)
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    moved = set(differing(before, dict(learner.D.state_dict())))
    assert {name for name, _ in learner.D.named_parameters()} <= moved
    assert [name for name, p in learner.G.named_parameters() if p.grad is None] == []


def test_g_learns_what_the_classes_are() -> None:
    """Dark images and bright ones: after a short training the class decides the brightness."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randint(0, 60, (64, 1, 32, 32), generator=rng) + 180 * labels[:, None, None, None]
    data = Dataset.from_arrays(images.to(torch.uint8).numpy(), labels.numpy(), ("dark", "bright"))
    of = recipe(model={"conditional": True, "width": 16}, lr_g=2e-3, lr_d=2e-3, batch_size=16, ema_kimg=0.0)
    learner = new_learner(of, classes=data.classes())
    run_steps(learner, data, 60)
    level = {name: generate(learner.ema.module, 16, classes=[name]).float().mean().item() for name in data.classes()}
    assert level["bright"] > level["dark"] + 60


def test_which_classes_are_drawn() -> None:
    G = pair("dcgan", 1, conditional=True, classes={"left": 30, "right": 10})[0].eval()
    assert labels_of(G, 0, 3, 5, ["right", "left"]).tolist() == [0, 1, 0, 1, 0]
    whole = labels_of(G, 7, 0, 4000)
    assert whole.float().mean().item() == pytest.approx(0.25, abs=0.03)  # as often as in training
    assert torch.equal(labels_of(G, 7, 100, 333), whole[100:433])
    assert not torch.equal(labels_of(G, 8, 0, 4000), whole)
    assert labels_of(pair("dcgan", 1)[0], 0, 0, 5) is None
    with pytest.raises(SpecError, match='there is no class "lefty"; expected one of: left, right') as error:
        labels_of(G, 0, 0, 1, ["lefty"])
    assert "left" in str(error.value.hint)
    with pytest.raises(SpecError, match="this generator is not conditional"):
        generate(pair("dcgan", 1)[0], 1, classes=["left"])
    z = inputs("G", 5)
    in_turn = draw(G, z, labels=torch.tensor([0, 1, 0, 1, 0]))
    assert torch.equal(draw(G, z), in_turn)
    assert len(interpolate(G, 3, classes=["right"])) == 4


@pytest.mark.parametrize("arch", ["dcgan", "stylegan2"])
def test_path_lengths_stay_within_a_class(arch: str) -> None:
    """With one class in all of training, they are those of the paths between images of that class."""
    G = awake(pair(arch, 1, conditional=True, classes={"left": 0, "right": 1})[0]).eval()
    paths = Paths(Generated(G, 5, seed=3))
    rows = paths.block(0)
    assert rows is not None
    assert rows[:, -1].tolist() == [1.0] * 5
    start, end = rows[:, :LATENT_DIM], rows[:, LATENT_DIM:-1]
    labels = torch.ones(5, dtype=torch.long)
    near, far = paths._steps(rows)
    torch.testing.assert_close(near, G(start, labels=labels))
    torch.testing.assert_close(far, G(end, labels=labels), rtol=1, atol=2)
    assert not torch.equal(near, G(start, labels=1 - labels))


def test_metrics_that_ask_d_are_refused() -> None:
    fields = recipe(model={"conditional": True}).model_dump(mode="json")
    assert Recipe.model_validate({**fields, "metrics": ["kid"]}).metrics == ["kid"]
    with pytest.raises(
        ValidationError, match="adversarial asks D about images without labels; a conditional one can't say"
    ):
        Recipe.model_validate({**fields, "metrics": ["kid", "adversarial"]})


def test_data_without_labels_is_refused() -> None:
    with pytest.raises(SpecError, match="every image needs a label; 40 of 40 have none"):
        check_fit(recipe(model={"conditional": True}).model, dataset())
    check_fit(recipe(model={"conditional": True}).model, dataset(labels=True))
    assert json.dumps(dataset(labels=True).classes()) == json.dumps({"left": 20, "right": 20})
