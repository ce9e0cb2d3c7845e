"""What every transfer method promises, on every network: what is frozen stays, what trains changes, all else starts fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import dataset, differing, new_learner, pair, recipe, run_steps

from tlgan import methods, registry
from tlgan.artifact import load_network, save_networks
from tlgan.distributed import World
from tlgan.errors import SpecError
from tlgan.learners.gan import GanLearner
from tlgan.models.adapters import plain
from tlgan.models.blocks import Network
from tlgan.recipe import Recipe
from tlgan.sampling import generate
from tlgan.transfer import Start, start_from

ARCHS = list(registry.ARCHS)
STYLED = [arch for arch in ARCHS if registry.ARCHS.facts(arch).get("styles")]
NORMED = [arch for arch in ARCHS if "spectral_norm" in registry.ARCHS.facts(arch)["options"]]
METHODS = list(registry.TRANSFERS)
FITTING = [(arch, method) for arch in ARCHS for method in METHODS if methods.misfit(method, arch) is None]
FREEZING = [name for name in METHODS if registry.TRANSFERS.facts(name).get("freezes")]
IN_CI = (
    "dcgan",
    "stylegan2",
)  # the other networks train by every method in `make test-all`, and by three of them always
ALWAYS = ("finetune", "freeze", "scale_shift")
SHORT = {"miner_kimg": 0.004, "probe_kimg": 0.004, "fisher_samples": 2}  # so that three steps see all stages
BLOCKS = registry.blocks_at(32)


def fitting(arch: str, method: str, *depths: int) -> Any:
    """A case of a test that trains."""
    return pytest.param(arch, method, *depths, marks=[] if arch in IN_CI or method in ALWAYS else pytest.mark.minutes)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory):
    """parents(arch, channels): a model directory after five steps of training."""
    made: dict[tuple[str, int], Path] = {}

    def parent(arch: str, channels: int = 1) -> Path:
        if (arch, channels) not in made:
            learner = new_learner(recipe(model={"arch": arch}, lr_g=1e-3, lr_d=1e-3), channels)
            run_steps(learner, dataset(channels, seed=1), 5)
            made[arch, channels] = tmp_path_factory.mktemp("parent")
            save_networks(made[arch, channels], learner.networks, type="gan")
        return made[arch, channels]

    return parent


def child(of: Recipe, parent: Path, channels: int = 1) -> tuple[Start, GanLearner]:
    start = start_from(parent, of, channels)
    return start, GanLearner(of, start.G, start.D, World(), start.G_ema)


def transfer(arch: str, method: str, freeze_d: int = 0, freeze_g: int = 0, **train) -> Recipe:
    section = {"method": method, "freeze_d": freeze_d, "freeze_g": freeze_g}
    section |= {name: value for name, value in SHORT.items() if name in methods.options(method)}
    return recipe(model={"arch": arch}, transfer=section, **train)


def both_of(start: Start) -> tuple[tuple[str, Network], ...]:
    return ("G", start.G), ("D", start.D)


@pytest.mark.parametrize(("arch", "method"), FITTING)
def test_starts_from_the_parents_average_and_discriminator(arch: str, method: str, parents) -> None:
    """All else is fresh, and told: what was taken over, what trains, what is frozen."""
    of = transfer(arch, method)
    start = start_from(parents(arch), of, 1)
    trainable = {w: sum(p.numel() for p in net.parameters() if p.requires_grad) for w, net in both_of(start)}
    learner = GanLearner(of, start.G, start.D, World(), start.G_ema)
    for which, network in (("G_ema", start.G), ("G_ema", start.G_ema), ("D", start.D)):
        own = {n: t for n, t in plain(network).state_dict().items() if ".miner." not in n}
        assert differing(own, load_network(parents(arch), which).state_dict()) == []
    assert all(not optimiser.state for optimiser in learner.optimisers.values())
    for which, network in both_of(start):
        total = sum(p.numel() for p in network.parameters())
        held = sum(p.numel() for group in learner.optimisers[which].param_groups for p in group["params"])
        assert held == trainable[which] == start.coverage.trainable[which]
        assert start.coverage.frozen[which] == total - held
    G, D = pair(arch)
    coverage = start.coverage.to_json()
    assert coverage["matched"] == {"G": len(G.state_dict()), "G_ema": len(G.state_dict()), "D": len(D.state_dict())}
    assert not any(coverage["reshaped"].values())
    assert not any(coverage["missing"].values())


@pytest.mark.parametrize(("arch", "method"), [fitting(*pair) for pair in FITTING])
def test_trains_and_gives_images(arch: str, method: str, parents, tmp_path: Path) -> None:
    _, learner = child(transfer(arch, method), parents(arch))
    before = {name: value.clone() for name, value in learner.G.state_dict().items()}
    rows = run_steps(learner, dataset(), 3)
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert differing(before, learner.G.state_dict())
    save_networks(tmp_path, learner.networks, type="gan")
    published, z = load_network(tmp_path, "G_ema"), torch.randn(3, 8)
    assert generate(published, 3).shape == (3, 1, 32, 32)
    plainly = set(pair(arch)[0].state_dict())
    assert {name for name in published.state_dict() if ".miner." not in name} == plainly
    assert set(load_network(tmp_path, "D").state_dict()) == set(pair(arch)[1].state_dict())
    torch.testing.assert_close(published(z), learner.ema.module(z), rtol=1e-4, atol=1e-5)


DEPTHS = [(d, g) for d in range(BLOCKS) for g in (0, BLOCKS - 1)] + [(1, 2)]
WHOLE = [("dcgan", "freeze"), ("stylegan2", "freeze"), ("dcgan", "scale_shift")]  # each depth


@pytest.mark.parametrize(
    ("arch", "method", "freeze_d", "freeze_g"),
    [
        fitting(*pair, *depths)
        for pair in FITTING
        if pair[1] in FREEZING
        for depths in (DEPTHS if pair in WHOLE else [(1, 2)])
    ],
)
def test_exactly_the_frozen_blocks_stay(
    arch: str, method: str, freeze_d: int, freeze_g: int, parents, tmp_path: Path
) -> None:
    """Weights, batch statistics and spectral norms, to the bit; so are the stored files of weights, which a store then shares.

    Where only scales and shifts train, the weights of every block of G are shared.
    """
    parent = parents(arch)
    of = transfer(arch, method, freeze_d, freeze_g)
    _, learner = child(of, parent)
    run_steps(learner, dataset(), 3)
    save_networks(tmp_path, learner.networks, type="gan")
    for which, origin, depth in (("D", "D", freeze_d), ("G", "G_ema", freeze_g), ("G_ema", "G_ema", freeze_g)):
        blocks = list(learner.networks[which].blocks)
        states = [load_network(path, one).state_dict() for path, one in ((parent, origin), (tmp_path, which))]
        changed = {name.split(".")[1] for name in differing(*states) if not mined(method, name)}
        assert [name for name in blocks if name not in changed] == blocks[:depth], which
        same = [
            name
            for name in blocks
            if (tmp_path / which / f"{name}.safetensors").read_bytes()
            == (parent / origin / f"{name}.safetensors").read_bytes()
        ]
        shared = blocks if method == "scale_shift" and which != "D" else blocks[:depth]
        assert same == (shared[1:] if method == "minegan" and which != "D" else shared), (
            which
        )  # the miner is in the first


def mined(method: str, name: str) -> bool:
    """What MineGAN changes in a frozen first block: its miner, and the average style, which follows the mined latents."""
    return method == "minegan" and (".miner." in name or name.endswith(".average"))


@pytest.mark.parametrize("arch", ARCHS)
def test_above_the_frozen_blocks_every_parameter_learns(arch: str, parents) -> None:
    _, learner = child(transfer(arch, "freeze", 2, 1), parents(arch))
    before = {
        which: {n: p.detach().clone() for n, p in net.named_parameters()} for which, net in learner.networks.items()
    }
    run_steps(learner, dataset(), 3)
    for which, depth in (("D", 2), ("G", 1)):
        network = learner.networks[which]
        frozen = tuple(f"blocks.{name}." for name in list(network.blocks)[:depth])
        changed = differing(before[which], {n: p.detach() for n, p in network.named_parameters()})
        assert changed == [name for name in before[which] if not name.startswith(frozen)]


@pytest.mark.parametrize(("which", "depth"), [("d", BLOCKS), ("d", 8), ("g", BLOCKS)])
@pytest.mark.parametrize("method", [method for arch, method in FITTING if arch == "dcgan" and method in FREEZING])
def test_freezing_a_whole_network_is_refused(method: str, which: str, depth: int, parents) -> None:
    of = transfer("dcgan", method, **{f"freeze_{which}": depth})
    with pytest.raises(SpecError) as error:
        start_from(parents("dcgan"), of, 1)
    assert str(error.value) == (
        f"transfer.freeze_{which}: expected at most 3 ({which.upper()} has 4 blocks and one must stay trainable), received {depth}"
    )


@pytest.mark.parametrize("arch", [arch for arch, method in FITTING if method == "scale_shift"])
def test_scale_shift_trains_scales_and_shifts_of_g(arch: str, parents) -> None:
    start, learner = child(transfer(arch, "scale_shift"), parents(arch))
    before = {name: p.detach().clone() for name, p in start.G.named_parameters()}
    run_steps(learner, dataset(), 3)
    changed = set(differing(before, {name: p.detach() for name, p in start.G.named_parameters()}))
    one_dimensional = {name for name, p in start.G.named_parameters() if p.dim() == 1}
    assert changed <= one_dimensional
    moved = {name for name in one_dimensional if "norm" in name or ".1." in name or name.endswith("b32.0.bias")}
    assert moved
    assert moved <= changed
    assert all(p.requires_grad for p in start.D.parameters())


@pytest.mark.parametrize(("theirs", "ours"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("arch", ARCHS)
class TestOtherChannels:
    def test_g_draws_the_same_pictures(self, arch: str, theirs: int, ours: int, parents) -> None:
        """Grey to RGB: the grey picture thrice. RGB to grey: what averaging the last layer's outputs gives."""
        _, learner = child(transfer(arch, "finetune"), parents(arch, theirs), ours)
        z = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            old, new = load_network(parents(arch, theirs), "G_ema")(z), learner.ema.module(z)
        assert new.shape == (6, ours, 32, 32)
        if ours == 3:
            torch.testing.assert_close(new, old.expand(-1, 3, -1, -1), rtol=1e-4, atol=1e-5)
        else:
            squashed = not registry.ARCHS.facts(arch).get("unbounded")
            inside = torch.atanh if squashed else (lambda x: x)
            torch.testing.assert_close(inside(new), inside(old).mean(1, keepdim=True), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("spectral_norm", [None, True])
    def test_d_reads_grey_images_alike(
        self, arch: str, theirs: int, ours: int, spectral_norm: bool | None, tmp_path: Path
    ) -> None:
        if arch in NORMED:
            spectral_norm = bool(spectral_norm)
        elif spectral_norm:
            pytest.skip("this family has no spectral norm")
        _, D = pair(arch, theirs, spectral_norm=spectral_norm)
        for _ in range(30):
            D(torch.randn(4, theirs, 32, 32))
        save_networks(tmp_path, {"D": D.eval(), "G_ema": pair(arch, theirs)[0]}, type="gan")
        start, _ = child(transfer(arch, "freeze", freeze_d=1), tmp_path, ours)
        grey = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        first = next(iter(D.blocks))
        with torch.no_grad():
            old = D.blocks[first](grey.expand(-1, theirs, -1, -1))
            new = start.D.eval().blocks[first](grey.expand(-1, ours, -1, -1))
        if spectral_norm:  # up to the norm: a constant a layer, between 1/sqrt(3) and sqrt(3)
            ratio = (new.norm() / old.norm()).item()
            assert 0.5 < ratio < 2
            if arch == "dcgan":
                torch.testing.assert_close(new, old * ratio, rtol=1e-3, atol=1e-4)
        else:
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)

    def test_reshaped_weights_keep_a_spectral_norm_of_one(self, arch: str, theirs: int, ours: int, parents) -> None:
        """Also in a frozen block, whose estimate never moves."""
        if arch not in NORMED:
            pytest.skip("this family has no spectral norm")
        start, learner = child(transfer(arch, "freeze", freeze_d=1), parents(arch, theirs), ours)
        run_steps(learner, dataset(ours), 2)
        block = next(iter(start.D.blocks.values()))
        reading = [m for m in block.modules() if hasattr(m, "parametrizations") and m.in_channels == ours]
        assert reading
        for module in reading:
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-4)

    def test_trains_and_says_what_was_reshaped(self, arch: str, theirs: int, ours: int, parents) -> None:
        start, learner = child(transfer(arch, "finetune"), parents(arch, theirs), ours)
        rows = run_steps(learner, dataset(ours), 3)
        assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
        coverage = start.coverage
        assert not any(coverage.missing.values())
        first, last = next(iter(start.D.blocks)), list(start.G.blocks)[-1]
        assert coverage.reshaped["D"]
        assert all(name.startswith(f"blocks.{first}.") for name in coverage.reshaped["D"])
        into_image = ".to_image." if arch in STYLED else f"blocks.{last}."
        assert all(into_image in name for name in coverage.reshaped["G"])
        biases = {name for name, p in start.G.named_parameters() if p.shape == (ours,) and into_image in name}
        assert {name for name in coverage.reshaped["G"] if not name.endswith(".weight")} == biases
        for which in ("G", "D", "G_ema"):
            total = len(learner.networks[which].state_dict())
            assert coverage.matched[which] + len(coverage.reshaped[which]) == total


def test_a_classifier_is_no_parent(tmp_path: Path) -> None:
    _, D = pair()
    save_networks(tmp_path, {"C": D}, type="classifier")
    with pytest.raises(LookupError, match="holds no network G_ema; it holds C"):
        start_from(tmp_path, transfer("dcgan", "finetune"), 1)
