"""What each transfer method does in training, beyond what all of them promise (tests/contracts/test_transfers.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import dataset, differing, flat, pair, recipe, run_steps

from tlgan import methods, registry
from tlgan.artifact import load_network, save_networks
from tlgan.distributed import World
from tlgan.learners.gan import GanLearner
from tlgan.models.adapters import adapters
from tlgan.models.mining import miner_of
from tlgan.transfer import start_from
from tlgan.transfer.cdc import EVERY, SPREAD, middle_block
from tlgan.transfer.kernel_modulation import choose

BATCH = 8


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parent")
    G, D = pair(seed=1)
    save_networks(path, {"G_ema": G, "D": D}, type="gan")
    return path


def learner_of(parent: Path, method: str, **options: Any) -> GanLearner:
    of = recipe(transfer={"method": method, **options}, batch_size=BATCH, lr_g=1e-3, lr_d=1e-3)
    start = start_from(parent, of, 1)
    return GanLearner(of, start.G, start.D, World(), start.G_ema)


def moved(learner: GanLearner, before: dict[str, torch.Tensor], which: str = "G") -> set[str]:
    """Names of parameters that are no longer what they were."""
    now = {name: p.detach() for name, p in learner.networks[which].named_parameters()}
    return set(differing(before, now))


def parameters(learner: GanLearner, which: str = "G") -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.networks[which].named_parameters()}


def test_frozen_blocks_thaw_one_by_one_the_last_one_first(parent: Path) -> None:
    learner = learner_of(parent, "freeze", freeze_d=3, freeze_g=1, thaw_kimg=2 * BATCH / 1000)
    for index in range(8):
        before = {which: parameters(learner, which) for which in ("G", "D")}
        run_steps(learner, dataset(), 1, first=index)
        for which, depth in (("D", 3), ("G", 1)):
            blocks = list(learner.networks[which].blocks)
            changed = {name.split(".")[1] for name in moved(learner, before[which], which)}
            assert changed == set(blocks[max(depth - index // 2, 0) :]), (which, index)


def test_thawing_goes_on_from_a_checkpoint(parent: Path) -> None:
    options = {"freeze_d": 2, "thaw_kimg": 2 * BATCH / 1000}
    whole, first, second = (learner_of(parent, "freeze", **options) for _ in range(3))
    run_steps(whole, dataset(), 6)
    run_steps(first, dataset(), 3)
    second.load_state_dict(first.state_dict())
    run_steps(second, dataset(), 3, first=3)
    assert differing(flat(whole.state_dict()), flat(second.state_dict())) == []


def test_a_frozen_mapping_leaves_the_styles_alone(tmp_path: Path) -> None:
    model = {"arch": "stylegan2", "mapping_layers": 2, "max_width": 8}
    G, D = pair(**model)
    save_networks(tmp_path, {"G_ema": G, "D": D}, type="gan")
    of = recipe(model=model, transfer={"method": "freeze_mapping"})
    start = start_from(tmp_path, of, 1)
    learner = GanLearner(of, start.G, start.D, World(), start.G_ema)
    z = torch.randn(4, 8)
    before = learner.G.styles(z), parameters(learner)
    run_steps(learner, dataset(), 2)
    assert torch.equal(learner.G.eval().styles(z), before[0])
    changed = moved(learner, before[1])
    assert changed == {name for name in before[1] if not name.startswith("blocks.mapping.")}


@pytest.mark.parametrize(
    ("method", "trains"),
    [("kernel_scale_shift", (".gamma", ".beta")), ("singular_values", (".change",))],
)
def test_adapters_train_and_weights_stay(method: str, trains: tuple[str, ...], parent: Path) -> None:
    """In G; singular values in D too, which has spectral norms."""
    learner = learner_of(parent, method)
    networks = ("G", "D") if method == "singular_values" else ("G",)
    before = {which: parameters(learner, which) for which in networks}
    run_steps(learner, dataset(), 2)
    for which in networks:
        changed = moved(learner, before[which], which)
        adapted = {name for name in before[which] if name.endswith(trains)}
        assert adapted
        assert adapted <= changed
        rest = {name for name in changed - adapted if before[which][name].dim() != 1 or method == "singular_values"}
        assert rest == set()


def test_the_miner_trains_alone_first(parent: Path) -> None:
    learner = learner_of(parent, "minegan", miner_kimg=2 * BATCH / 1000, miner_layers=3)
    z = torch.randn(4, 8)
    source = load_network(parent, "G_ema")
    with torch.no_grad():
        assert torch.equal(learner.ema.module(z), source(z))  # it starts as the identity
    before, buffers = parameters(learner), {n: b.clone() for n, b in learner.G.named_buffers()}
    run_steps(learner, dataset(), 2)
    changed = moved(learner, before)
    assert changed
    assert all(".miner." in name for name in changed)
    assert differing(buffers, dict(learner.G.named_buffers())) == []
    assert moved(learner, parameters(learner_of(parent, "minegan"), "D"), "D")
    run_steps(learner, dataset(), 1, first=2)
    assert moved(learner, before) == set(before)


def test_the_miners_gradients_are_of_one_step(parent: Path) -> None:
    """With a G that does not move, each step's gradient is that of the same step taken alone."""

    def gradients(steps: list[int]) -> dict[str, torch.Tensor]:
        of = recipe(transfer={"method": "minegan"}, batch_size=BATCH, lr_g=1e-30, lr_d=1e-30)
        start = start_from(parent, of, 1)
        learner = GanLearner(of, start.G.requires_grad_(True), start.D.eval(), World(), start.G_ema)
        for index in steps:
            state = {name: t.clone() for name, t in start.D.state_dict().items()}
            run_steps(learner, dataset(), 1, first=index)
            start.D.load_state_dict(state)  # its spectral norms move at every look
        return {name: p.grad for name, p in miner_of(learner.G).named_parameters()}

    together, alone = gradients([0, 1, 2, 3]), gradients([3])
    for name in ("layers.1.weight", "layers.1.bias"):
        assert alone[name].norm() > 0
        assert (together[name] - alone[name]).norm() < 1e-5 * alone[name].norm(), name


def test_a_mined_generator_is_published_with_its_miner_and_can_be_a_parent(parent: Path, tmp_path: Path) -> None:
    learner = learner_of(parent, "minegan")
    run_steps(learner, dataset(), 2)
    save_networks(tmp_path, learner.networks, type="gan")
    loaded, z = load_network(tmp_path, "G_ema"), torch.randn(4, 8)
    with torch.no_grad():
        assert torch.equal(loaded(z), learner.ema.module(z))
        assert not torch.equal(miner_of(loaded)(z), z)
        for method in ("finetune", "minegan"):
            again = learner_of(tmp_path, method)
            assert torch.equal(again.ema.module(z), loaded(z))


def test_anchored_latents_are_the_same_however_many_workers(parent: Path) -> None:
    learner = learner_of(parent, "cdc", anchors=3)
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    near, _ = learner.method.latents(z, {}, 5, World())
    parts = [learner.method.latents(z[8 * r : 8 * r + 8], {}, 5, World(r, 2))[0] for r in (0, 1)]
    assert torch.equal(torch.cat(parts), near)
    anchored = torch.arange(16) % EVERY == 0
    assert torch.equal(near[~anchored], z[~anchored])
    centres = near[anchored] - SPREAD * z[anchored]
    assert len({tuple(row.tolist()) for row in centres.mul(1000).round()}) <= 3
    assert near[anchored].sub(z[anchored]).abs().min() > 0


def test_d_judges_whole_images_near_anchors_only(parent: Path) -> None:
    """And patches of all: the head learns, and is not published."""
    learner = learner_of(parent, "cdc")
    before = parameters(learner, "D")
    rows = run_steps(learner, dataset(), 2)
    assert {"patch_d", "patch_g", "distances"} <= set(rows[0])
    assert abs(rows[0]["distances"]) < 1e-3 < rows[1]["distances"]  # none before the first step
    heads = {name for name in before if name.startswith("heads.patch.")}
    assert heads
    assert heads <= moved(learner, before, "D")
    seen = []
    original = learner.loss.d
    learner.loss.d = lambda real, fake: seen.append((len(real), len(fake))) or original(real, fake)
    run_steps(learner, dataset(), 1, first=2)
    assert seen == [(BATCH // EVERY, BATCH // EVERY)]
    assert middle_block(learner.D) == "b16"


def test_the_most_informative_kernels_are_chosen_whatever_their_layer(parent: Path) -> None:
    G = learner_of(parent, "kernel_modulation").G
    names = [name for name, _ in adapters(G)]
    information = {name: torch.zeros(len(adapter.chosen)) for name, adapter in adapters(G)}
    information[names[0]][3] = 5.0
    information[names[1]][:2] = torch.tensor([1.0, 7.0])
    total = sum(len(v) for v in information.values())
    choose(G, information, 3 / total)
    chosen = {name: adapter.chosen.nonzero().flatten().tolist() for name, adapter in adapters(G)}
    assert chosen == {name: {names[0]: [3], names[1]: [0, 1]}.get(name, []) for name in names}


def test_probing_leaves_nothing_but_the_choice(parent: Path) -> None:
    """After it, training starts from the source; kept kernels are modulated, the others train."""
    learner = learner_of(parent, "kernel_modulation", probe_kimg=2 * BATCH / 1000, modulated=0.5)
    networks = ("G", "D")
    before = {which: parameters(learner, which) for which in networks}
    run_steps(learner, dataset(), 2)
    for which in networks:
        changed = moved(learner, before[which], which)
        assert changed
        assert all(name.endswith((".A", ".B")) for name in changed)
    restarted = []
    original = learner.restart
    learner.restart = lambda: original() or restarted.append({w: parameters(learner, w) for w in ("G", "D", "G_ema")})
    run_steps(learner, dataset(), 2, first=2)
    assert differing(restarted[0]["G"], before["G"]) == []
    assert differing(restarted[0]["G_ema"], before["G"]) == []
    assert differing(restarted[0]["D"], before["D"]) == []
    for which in networks:
        chosen = torch.cat([adapter.chosen for _, adapter in adapters(learner.networks[which])])
        assert int(chosen.sum()) == round(0.5 * len(chosen))
        now = parameters(learner, which)
        for name, adapter in adapters(learner.networks[which]):
            name = f"{name}.parametrizations.weight.original"
            rows, then = (tensors[name].movedim(adapter.axis, 0) for tensors in (now, before[which]))
            kept = torch.tensor([torch.equal(a, b) for a, b in zip(rows, then, strict=True)])
            assert torch.equal(kept, adapter.chosen), name
    assert all(int(slots["step"]) == 2 for slots in learner.optimisers["D"].state.values())


@pytest.mark.parametrize("after", [1, 2, 3])
def test_probing_goes_on_from_a_checkpoint(after: int, parent: Path) -> None:
    """Before the choice, at its border and after it."""
    options = {"probe_kimg": 2 * BATCH / 1000, "fisher_samples": 8}
    whole, first, second = (learner_of(parent, "kernel_modulation", **options) for _ in range(3))
    run_steps(whole, dataset(), 4)
    run_steps(first, dataset(), after)
    second.load_state_dict(first.state_dict())
    run_steps(second, dataset(), 4 - after, first=after)
    assert differing(flat(whole.state_dict()), flat(second.state_dict())) == []


def test_options_belong_to_methods() -> None:
    with pytest.raises(ValueError, match=r"finetune has no rank \(it is for kernel_modulation\); leave it out"):
        recipe(transfer={"method": "finetune", "rank": 2})
    with pytest.raises(ValueError, match=r"freeze_mapping is for networks with styles \(stylegan2.*\); dcgan has none"):
        recipe(transfer={"method": "freeze_mapping"})
    of = recipe(transfer={"method": "ewc", "weight": 2.0})
    assert (of.transfer.option("weight"), of.transfer.option("fisher_samples")) == (2.0, 64)
    for method in registry.TRANSFERS:
        assert set(methods.options(method)) <= set(type(of.transfer).model_fields)
        assert registry.TRANSFERS.facts(method)["about"]


def test_every_option_says_whose_it_is() -> None:
    """In the schema, and so in `tlgan schema`, with the default that the table has."""
    fields = type(recipe(transfer={"method": "ewc"}).transfer).model_fields
    for option in methods.OPTIONS:
        owners = [method for method in registry.TRANSFERS if option in methods.options(method)]
        said = fields[option].description or ""
        default = methods.options(owners[0])[option]
        if option != "weight":
            assert said.startswith(", ".join(owners) + ":")
            assert said.endswith(f"default: {'never' if default is None else f'{default:g}'}")
