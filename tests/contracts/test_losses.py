"""Every objective against a closed form in NumPy, every penalty against a critic whose gradient is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_gan import dataset, new_learner, pair, recipe, run_steps

from tlgan import registry
from tlgan.distributed import World
from tlgan.learners.terms import Terms, View
from tlgan.losses.penalties import PenaltyTerm, penalties_of

REAL, FAKE = np.array([1.5, -0.25, 0.0, 3.0]), np.array([-2.0, 0.5, 1.25, -0.75])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# name: (D's loss, G's loss) as the papers write them, of probabilities where they do
FORMULAS: dict[str, tuple[Callable, Callable]] = {
    "minimax": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
        lambda f: np.log(1 - sigmoid(f)).mean(),
    ),
    "nonsaturating": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
        lambda f: -np.log(sigmoid(f)).mean(),
    ),
    "least_squares": (lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2, lambda f: ((f - 1) ** 2).mean() / 2),
    "hinge": (lambda r, f: np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(), lambda f: -f.mean()),
    "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "relativistic": (
        lambda r, f: -np.log(sigmoid(r - f)).mean(),
        lambda f, r=REAL: -np.log(sigmoid(f - r)).mean(),
    ),
}


def g_loss(name: str, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """G's loss, for those that compare with real images too."""
    loss = registry.LOSSES.load(name)()
    return loss.g(fake, real) if loss.paired else loss.g(fake)


def test_every_objective_has_its_formula_here() -> None:
    assert set(FORMULAS) == set(registry.LOSSES)


def numeric_gradient(f: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    steps = np.eye(len(x)) * 1e-6
    return np.array([(f(x + s) - f(x - s)) / 2e-6 for s in steps])


@pytest.mark.parametrize("name", list(registry.LOSSES))
def test_value_and_gradient(name: str) -> None:
    loss = registry.LOSSES.load(name)()
    d, g = FORMULAS[name]
    real, fake = (torch.tensor(x, requires_grad=True) for x in (REAL, FAKE))
    value = loss.d(real, fake)
    value.backward()
    assert value.item() == pytest.approx(d(REAL, FAKE), rel=1e-9)
    np.testing.assert_allclose(real.grad, numeric_gradient(lambda r: d(r, FAKE), REAL), atol=1e-8)
    np.testing.assert_allclose(fake.grad, numeric_gradient(lambda f: d(REAL, f), FAKE), atol=1e-8)
    fake.grad = None
    value = g_loss(name, fake, real.detach())
    value.backward()
    assert value.item() == pytest.approx(g(FAKE), rel=1e-9)
    np.testing.assert_allclose(fake.grad, numeric_gradient(g, FAKE), atol=1e-8)


@pytest.mark.parametrize("name", list(registry.LOSSES))
def test_large_logits_stay_finite(name: str) -> None:
    loss = registry.LOSSES.load(name)()
    x = torch.tensor([-1e4, 1e4], requires_grad=True)
    (loss.d(x, x) + g_loss(name, x, x)).backward()
    (loss.d(x, x.flip(0)) + g_loss(name, x, x.flip(0))).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", list(registry.LOSSES))
def test_both_sides_pull_the_right_way(name: str) -> None:
    """D's loss falls when real logits rise and fake ones fall; G's falls when fake logits rise."""
    loss = registry.LOSSES.load(name)()
    real, fake = torch.zeros(3, requires_grad=True), torch.full((3,), 0.1, requires_grad=True)
    loss.d(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    fake.grad = None
    g_loss(name, fake, real.detach()).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("name", list(registry.LOSSES))
def test_a_relative_objective_sees_differences_only(name: str) -> None:
    loss = registry.LOSSES.load(name)()
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    moved = loss.d(real + 3, fake + 3)
    assert bool(torch.isclose(moved, loss.d(real, fake))) == loss.relative


def test_pairs_are_image_by_image() -> None:
    """Not the mean of real against the mean of generated logits: another order of the images is another loss."""
    loss = registry.LOSSES.load("relativistic")()
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    assert loss.d(real, fake.flip(0)).item() != pytest.approx(loss.d(real, fake).item())


def test_the_original_formula_saturates_and_the_practical_one_does_not() -> None:
    """When D is sure that an image is generated, only the non-saturating G still learns from it."""
    gradients = {}
    for name in ("minimax", "nonsaturating"):
        sure = torch.tensor([-12.0], requires_grad=True)
        registry.LOSSES.load(name)().g(sure).backward()
        gradients[name] = sure.grad.item()
    assert gradients["minimax"] == pytest.approx(0, abs=1e-4)
    assert gradients["nonsaturating"] == pytest.approx(-1, abs=1e-4)


class Linear:
    """A critic w.x, whose gradient is w everywhere."""

    def __init__(self, seed: int = 0) -> None:
        self.w = torch.randn(2 * 3 * 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        self.w.requires_grad_(True)
        self.seen: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach())
        return x.flatten(1) @ self.w


def penalty(name: str, weight: float):
    return registry.PENALTIES.load(name)(weight)


def images(seed: int) -> torch.Tensor:
    return torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_r1_of_a_linear_critic() -> None:
    critic, gamma = Linear(), 3.0
    value = penalty("r1", gamma)(critic, images(1), images(2), torch.rand(4))
    value.backward()
    assert value.item() == pytest.approx(gamma / 2 * critic.w.square().sum().item(), rel=1e-6)
    torch.testing.assert_close(critic.w.grad, gamma * critic.w.detach())
    assert torch.equal(critic.seen[0], images(1))  # real images only


def test_r2_is_r1_at_generated_images() -> None:
    critic, gamma = Linear(), 3.0
    value = penalty("r2", gamma)(critic, images(1), images(2), torch.rand(4))
    assert value.item() == pytest.approx(gamma / 2 * critic.w.square().sum().item(), rel=1e-6)
    assert torch.equal(critic.seen[0], images(2))  # generated images only

    def square(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).square().sum(1)

    assert penalty("r2", 2.0)(square, images(1), images(2), torch.rand(4)) == penalty("r1", 2.0)(
        square, images(2), images(1), torch.rand(4)
    )


def test_gradient_penalty_of_a_linear_critic() -> None:
    critic, lam, mix = Linear(), 10.0, torch.tensor([0.0, 1.0, 0.5, 0.25])
    value = penalty("wgan_gp", lam)(critic, images(1), images(2), mix)
    value.backward()
    norm = critic.w.detach().norm()
    assert value.item() == pytest.approx(lam * (norm.item() - 1) ** 2, rel=1e-5)
    torch.testing.assert_close(critic.w.grad, 2 * lam * (norm - 1) * critic.w.detach() / norm)
    share = mix[:, None, None, None]
    torch.testing.assert_close(critic.seen[0], (1 - share) * images(1) + share * images(2))


def test_r1_of_a_quadratic_critic_is_a_mean_over_images() -> None:
    """critic a|x|^2 has gradient 2ax, so R1 is gamma/2 * 4a^2 * E|x|^2."""
    a = torch.tensor(0.7, requires_grad=True)
    value = penalty("r1", 2.0)(lambda x: a * x.flatten(1).square().sum(1), images(1), images(2), torch.rand(4))
    value.backward()
    mean_square = images(1).flatten(1).square().sum(1).mean().item()
    assert value.item() == pytest.approx(4 * 0.7**2 * mean_square, rel=1e-5)
    assert a.grad.item() == pytest.approx(8 * 0.7 * mean_square, rel=1e-5)


@pytest.mark.parametrize("name", list(registry.PENALTIES))
def test_lazily_applied_the_mean_over_an_interval_is_the_same(name: str) -> None:
    """What is added to D's loss over 6 steps, every step or every third: equal sums for a critic that stands still."""
    sums = {}
    mixes = {step: torch.full((4,), 0.25) for step in range(6)}
    for interval in (1, 3):
        of = penalty(name, 5.0)
        terms = Terms([Standing(of, interval)])
        added = [terms.add(torch.zeros(()), "D", view(step, Linear(), mixes[step]))[0].item() for step in range(6)]
        assert [value == 0 for value in added] == [step % interval > 0 for step in range(6)]
        sums[interval] = sum(added)
    assert sums[3] == pytest.approx(sums[1], rel=1e-5)


class Standing(PenaltyTerm):
    """With a mix that does not change from step to step."""

    def __init__(self, of: Any, interval: int) -> None:
        super().__init__(of, interval, seed=0, world=World())

    def __call__(self, view: View) -> torch.Tensor:
        return self.penalty(view.D, view.shown_real, view.shown_fake, view.z)


def view(step: int, critic: Any, mix: torch.Tensor) -> View:
    shown = {"shown_real": images(1), "shown_fake": images(2), "logits_fake": torch.zeros(4)}
    return View(step=step, G=None, D=critic, real=images(1), fake=images(2), z=mix, inputs={}, **shown)


@pytest.mark.parametrize("name", list(registry.PENALTIES))
def test_penalties_stay_in_fp32(name: str) -> None:
    dtypes = []

    def critic(x: torch.Tensor) -> torch.Tensor:
        product = x.flatten(1) @ torch.ones(18, 1)
        dtypes.append(product.dtype)
        return product.flatten()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty(name, 1.0)(critic, images(1).bfloat16(), images(2).bfloat16(), torch.rand(4))
    assert dtypes == [torch.float32]


def test_a_penalty_of_weight_zero_is_off() -> None:
    assert penalties_of(recipe(), World()) == []
    both = penalties_of(recipe(loss={"r1": 0.5, "r1_interval": 4, "gp": 10.0}), World())
    assert [(t.name, t.penalty.weight, t.interval) for t in both] == [("r1", 0.5, 4), ("wgan_gp", 10.0, 1)]


@pytest.mark.parametrize(
    "loss", [{"r1": 1.0, "r1_interval": 1}, {"gp": 10.0}, {"r1": 1.0, "r1_interval": 1, "r2": 1.0}]
)
@pytest.mark.parametrize("arch", list(registry.ARCHS))
def test_with_a_penalty_every_parameter_of_d_learns(arch: str, loss: dict) -> None:
    """Biases that no penalty touches get their gradient from the objective, in the same backward."""
    learner = new_learner(recipe(model={"arch": arch}, loss=loss))
    run_steps(learner, dataset(), 1)
    assert [name for name, p in learner.D.named_parameters() if p.grad is None] == []
    assert [name for name, p in learner.G.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("arch", list(registry.ARCHS))
def test_penalties_leave_no_gradient_behind(arch: str) -> None:
    """The first backward is with respect to images; D's gradients come from the step's one backward only."""
    _, D = pair(arch)
    term = penalty("r1", 1.0)(D, torch.randn(2, 1, 32, 32), torch.randn(2, 1, 32, 32), torch.rand(2))
    assert [name for name, p in D.named_parameters() if p.grad is not None] == []
    term.backward()
    assert any(p.grad is not None for p in D.parameters())


def test_a_step_applies_penalties_at_their_interval_and_reports_them_uncorrected() -> None:
    learner = new_learner(recipe(loss={"r1": 1.0, "r1_interval": 3}))
    rows = run_steps(learner, dataset(), 7)
    assert [("r1" in row) for row in rows] == [True, False, False, True, False, False, True]
    every = new_learner(recipe(loss={"r1": 1.0, "r1_interval": 1}))
    assert rows[0]["r1"] == pytest.approx(run_steps(every, dataset(), 1)[0]["r1"], rel=1e-6)


def test_the_interval_counts_steps_of_d() -> None:
    """With three D steps a step, a penalty at every second one is in each step's statistics."""
    learner = new_learner(recipe(loss={"r1": 1.0, "r1_interval": 2}, n_critic=3))
    calls = []
    (term,) = learner.terms.all
    original = term.penalty

    def counted(*args):
        calls.append(1)
        return original(*args)

    counted.at = original.at
    term.penalty = counted
    rows = run_steps(learner, dataset(), 4)
    assert len(calls) == 6
    assert all("r1" in row for row in rows)
