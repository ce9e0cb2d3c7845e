"""The loop: what it tells, when it stops, what it refuses, and what a step changes."""

from __future__ import annotations

import pytest
import torch
from tiny_gan import dataset, differing, new_learner, recipe, run_steps

from tlgan import checkpoint
from tlgan.distributed import World
from tlgan.errors import RunFailed, SpecError
from tlgan.metrics.protocol import MetricValue
from tlgan.train import Schedule


def test_the_same_recipe_gives_the_same_weights_whatever_the_global_seed(train) -> None:
    torch.manual_seed(1)
    a = train(recipe(augment={"name": "diffaugment"}), 20, "a")
    torch.manual_seed(2)
    b = train(recipe(augment={"name": "diffaugment"}), 20, "b")
    other = train(recipe(augment={"name": "diffaugment"}, seed=1), 20, "c")
    assert differing(a.state(), b.state()) == []
    assert a.facts() == b.facts()
    assert differing(a.state(), other.state())


def test_progress_is_the_mean_of_the_steps_since_the_last(train) -> None:
    outcome = train(recipe(), 40, tick_every=12)
    assert [e["nimg"] for e in outcome.of_type("progress")] == [12, 24, 36, 40]
    rows = run_steps(new_learner(recipe()), dataset(), 10)
    for event, steps in zip(outcome.of_type("progress"), (rows[:3], rows[3:6], rows[6:9], rows[9:]), strict=True):
        assert set(event["stats"]) == {"loss_d", "loss_g", "logits_real", "logits_fake"}
        for name, value in event["stats"].items():
            assert value == pytest.approx(sum(row[name] for row in steps) / len(steps), rel=1e-5)
        assert event["img_per_s"] > 0


def test_a_lazy_penaltys_mean_is_over_the_steps_that_took_it(train) -> None:
    of = recipe(loss={"r1": 1.0, "r1_interval": 4})
    outcome = train(of, 32, tick_every=32)
    rows = run_steps(new_learner(of), dataset(), 8)
    assert outcome.of_type("progress")[0]["stats"]["r1"] == pytest.approx((rows[0]["r1"] + rows[4]["r1"]) / 2, rel=1e-5)


def test_grids_are_drawn_from_the_same_latents(train) -> None:
    outcome = train(recipe(), 16, grid_every=8, grid=(2, 3))
    grids = outcome.of_type("grid")
    assert [e["nimg"] for e in grids] == [0, 8, 16]
    assert all(e["images"].shape == (6, 1, 32, 32) and e["images"].dtype == torch.uint8 for e in grids)
    assert not torch.equal(grids[1]["images"], grids[2]["images"])


def test_the_evaluator_sees_the_moving_average_at_its_marks_and_at_the_end(train) -> None:
    seen = []

    def evaluator(G_ema, world: World, D=None) -> list[MetricValue]:
        assert not G_ema.training
        seen.append(world.size)
        return [MetricValue("kid", float(len(seen)), {"samples": 16})]

    outcome = train(recipe(), 24, evaluator=evaluator, evaluate_at=Schedule.marks(0.01, 24))
    assert [(e["nimg"], e["name"], e["value"]) for e in outcome.of_type("metric")] == [
        (12, "kid", 1.0),
        (20, "kid", 2.0),
        (24, "kid", 3.0),
    ]
    assert [m.value for m in outcome.result.metrics] == [3.0]


@pytest.mark.parametrize(
    ("every", "total", "marks"),
    [
        (None, 100, (100,)),
        (0.03, 100, (30, 60, 90, 100)),
        (0.05, 100, (50, 100)),
        (1.0, 100, (100,)),
        (1e-9, 3, (1, 2, 3)),
    ],
)
def test_marks(every: float | None, total: int, marks: tuple[int, ...]) -> None:
    assert Schedule.marks(every, total) == marks


def test_a_stop_ends_with_a_checkpoint(train, tmp_path) -> None:
    outcome = train(recipe(), 400, stop_at=12, checkpoint_every=200, tick_every=4)
    assert not outcome.result.finished
    assert outcome.result.nimg == 12
    assert outcome.saved == [12]
    assert checkpoint.newest(tmp_path / "a" / "checkpoints").name == "ckpt-000000000012"


@pytest.mark.parametrize(("which", "loss"), [("lr_d", "loss_g"), ("lr_g", "weights of G")])
def test_divergence_fails_the_run_and_names_what_broke(which: str, loss: str, train, tmp_path) -> None:
    """What the overshooting network spoils first: a loss, or its weights."""
    of = recipe(model={"spectral_norm": False}, loss={"name": "least_squares"}, **{which: 1e38})
    with pytest.raises(RunFailed, match=rf"training diverged: .*{loss}.* is not finite at 0\.\d+ kimg") as error:
        train(of, 400, checkpoint_every=4, tick_every=40)
    assert error.value.hint == "lower train.lr_g and train.lr_d, or add a penalty (loss.r1)"
    newest = checkpoint.newest(tmp_path / "a" / "checkpoints")
    if newest is not None:  # what was saved before is sound
        state, _ = checkpoint.load(newest, of)
        assert all(t.isfinite().all() for which in ("G", "D") for t in state[which].values())


def test_images_of_another_size_are_refused(train) -> None:
    with pytest.raises(SpecError, match="the images are 64 px and the networks 32 px") as error:
        train(recipe(), 8, data=dataset(resolution=64))
    assert error.value.hint == "set data.resolution to 32, or leave it out"


def test_the_average_is_taken_over_critic_steps_images(train) -> None:
    """The budget counts every real image D saw."""
    outcome = train(recipe(n_critic=3), 36, tick_every=1)
    assert [e["nimg"] for e in outcome.of_type("progress")] == [12, 24, 36]


def test_ds_gradients_come_from_its_own_phase_only() -> None:
    """After a step, D's gradients are those of D's loss: G's phase leaves them alone."""
    of = recipe(lr_d=1e-30)  # D does not move, so its loss can be taken again
    learner = new_learner(of)
    run_steps(learner, dataset(), 1)
    gradients = {name: p.grad.clone() for name, p in learner.D.named_parameters()}
    assert all(p.requires_grad for p in learner.D.parameters())
    twin = new_learner(of)
    twin._g_phase = lambda *_: {}  # type: ignore[method-assign]
    run_steps(twin, dataset(), 1)
    assert differing(gradients, {name: p.grad for name, p in twin.D.named_parameters()}) == []


def test_gradients_and_slots_are_laid_out_as_their_parameters() -> None:
    """Fused Adam walks raw memory: another layout would pair the wrong numbers."""
    learner = new_learner(recipe(loss={"r1": 1.0, "r1_interval": 1}))
    run_steps(learner, dataset(), 2)
    again = new_learner(recipe(loss={"r1": 1.0, "r1_interval": 1}))
    again.load_state_dict(
        {k: {n: t.clone().contiguous() for n, t in v.items()} for k, v in learner.state_dict().items()}
    )
    run_steps(again, dataset(), 1, first=2)
    for which in ("G", "D"):
        for p in again.networks[which].parameters():
            slots = again.optimisers[which].state[p]
            for tensor in (p.grad, slots["exp_avg"], slots["exp_avg_sq"]):
                dense = [(s, n) for s, n in zip(tensor.stride(), p.shape, strict=True) if n > 1]
                assert dense == [(s, n) for s, n in zip(p.stride(), p.shape, strict=True) if n > 1]


@pytest.mark.parametrize("arch", ["dcgan", "resnet"])
def test_bf16_takes_about_the_same_step(arch: str) -> None:
    rows = {}
    for precision in ("fp32", "bf16"):
        of = recipe(model={"arch": arch}, precision=precision, loss={"r1": 1.0, "r1_interval": 1})
        learner = new_learner(of)
        rows[precision] = run_steps(learner, dataset(), 3)
        assert {p.dtype for net in learner.networks.values() for p in net.parameters()} == {torch.float32}
    for a, b in zip(rows["fp32"], rows["bf16"], strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=0.05, abs=0.02)
    assert rows["fp32"] != rows["bf16"]
