"""What D says on held-out images: closed forms, and D is looked at in eval mode and left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_gan import dataset, pair

from tlgan.errors import DataError, SpecError
from tlgan.metrics.critic import adversarial, d_overfit
from tlgan.metrics.looking import judge
from tlgan.metrics.measure import measure


def test_the_auc_of_a_d_that_knows_everything_nothing_and_the_reverse() -> None:
    low, high = np.array([-2.0, -1.0]), np.array([1.0, 2.0, 3.0])
    assert (adversarial(high, low), adversarial(low, high)) == (1, 0)
    assert adversarial(np.zeros(3), np.zeros(5)) == 0.5
    assert adversarial(np.array([0.0, 2.0]), np.array([1.0, 1.0, 0.0])) == (0.5 + 3) / 6


def test_the_auc_of_shifted_normals(normal) -> None:
    from math import erf

    real, fake = normal(4000, 1, seed=0, shift=1), normal(4000, 1, seed=1)
    assert adversarial(real, fake) == pytest.approx((1 + erf(0.5)) / 2, abs=0.01)  # Phi(1 / sqrt 2)


def test_r_v_is_0_for_a_d_that_generalises_and_1_for_one_that_knows_by_heart() -> None:
    training, fake = np.array([2.0, 4.0]), np.array([-1.0, -1.0])
    assert d_overfit(training, np.array([3.0]), fake) == 0
    assert d_overfit(training, np.array([-1.0]), fake) == 1
    assert d_overfit(training, np.array([2.0]), fake) == 0.25
    assert np.isnan(d_overfit(training, np.array([2.0]), training))


def test_mistakes_are_said_clearly() -> None:
    with pytest.raises(DataError, match="on held-out images: expected finite numbers"):
        adversarial(np.array([np.nan]), np.zeros(2))
    data, images = dataset(count=20), torch.zeros(20, 1, 32, 32, dtype=torch.uint8)
    with pytest.raises(SpecError, match="needs a discriminator"):
        measure(["adversarial"], [images], data, None, seed=0)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="needs the images that were trained on"):
        measure(["d_overfit"], [images], data, None, seed=0, critic=pair()[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ["dcgan", "stylegan2"])
def test_d_judges_in_eval_mode_and_is_left_as_it_was(arch: str) -> None:
    _, D = pair(arch=arch, seed=1)
    D.train()
    before = {name: t.clone() for name, t in D.state_dict().items()}
    images = torch.from_numpy(np.array(dataset(count=10).images))
    logits = judge(D, images)
    assert logits.shape == (10,)
    assert D.training
    assert all(torch.equal(before[name], t) for name, t in D.state_dict().items()), "no power iteration, no statistics"
    with torch.no_grad():
        whole = D.eval()(torch.cat([images, images[:2]]).float() / 127.5 - 1)[:10]
    torch.testing.assert_close(logits, whole if arch == "stylegan2" else D(images.float() / 127.5 - 1).detach())
