"""The moving average of the generator."""

from __future__ import annotations

import pytest
import torch
from tiny_gan import dataset, new_learner, pair, recipe, run_steps

from tlgan.ema import Ema


def averaged(half_life: float, nimg: int, per_step: int, rampup: float = 0.0) -> float:
    """An average that starts at 0 and sees 1 for `nimg` images: its value."""
    G, _ = pair()
    ema = Ema(G, half_life, rampup)
    with torch.no_grad():
        for p in ema.module.parameters():
            p.zero_()
        for p in G.parameters():
            p.fill_(1.0)
    for seen in range(per_step, nimg + 1, per_step):
        ema.update(G, seen, per_step)
    values = {round(float(v), 5) for p in ema.module.parameters() for v in (p.min(), p.max())}
    assert len(values) == 1
    return values.pop()


def test_after_one_half_life_half_is_new() -> None:
    assert averaged(640, 640, 64) == pytest.approx(0.5, abs=1e-4)
    assert averaged(640, 1920, 64) == pytest.approx(1 - 0.5**3, abs=1e-4)


def test_the_batch_size_does_not_matter() -> None:
    assert averaged(1000, 2000, 10) == pytest.approx(averaged(1000, 2000, 500), abs=1e-4)


def test_half_life_zero_is_off() -> None:
    assert averaged(0, 64, 64) == 1.0


def test_the_half_life_grows_with_the_images_seen() -> None:
    ema = Ema(pair()[0], 5000, 0.05)
    assert ema.decay(2000, 50) == pytest.approx(0.5 ** (50 / 100))
    assert ema.decay(10**9, 50) == pytest.approx(0.5 ** (50 / 5000))
    assert ema.decay(100, 100) == pytest.approx(0.5**20)


@pytest.mark.parametrize("n_critic", [1, 3])
def test_a_step_counts_every_image_it_shows(n_critic: int) -> None:
    """With three D steps a step, three batches have been seen between two averages."""
    learner = new_learner(recipe(n_critic=n_critic, batch_size=4, ema_kimg=0.012, ema_rampup=0.0))
    before = [p.clone() for p in learner.ema.module.parameters()]
    run_steps(learner, dataset(), 1)
    keep = 0.5 ** (4 * n_critic / 12)
    for average, old, new in zip(learner.ema.module.parameters(), before, learner.G.parameters(), strict=True):
        torch.testing.assert_close(average, keep * old + (1 - keep) * new.detach(), rtol=1e-5, atol=1e-6)


def test_buffers_are_copied_not_averaged() -> None:
    learner = new_learner(recipe(ema_kimg=1000.0, ema_rampup=0.0))
    before = {name: b.clone() for name, b in learner.ema.module.named_buffers()}
    run_steps(learner, dataset(), 2)
    for (name, average), own in zip(learner.ema.module.named_buffers(), learner.G.buffers(), strict=True):
        assert torch.equal(average, own), name
        assert not torch.equal(average, before[name]), name


def test_equal_weights_stay_equal_to_the_bit() -> None:
    G, _ = pair(seed=3)
    ema = Ema(G, 333, 0.05)
    for step in range(1, 30):
        ema.update(G, step * 7, 7)
    assert all(torch.equal(a, b) for a, b in zip(ema.module.parameters(), G.parameters(), strict=True))


def test_the_average_takes_no_gradients_and_stays_in_eval_mode() -> None:
    learner = new_learner(recipe())
    run_steps(learner, dataset(), 1)
    assert not any(p.requires_grad for p in learner.ema.module.parameters())
    assert not any(module.training for module in learner.ema.module.modules())
