"""train_classifier: learns, repeats itself, leaves global state alone, and says what data it can't use."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tlgan import checkpoint
from tlgan.data import Dataset, prepare
from tlgan.errors import DataError
from tlgan.learners.classifier import class_weights, evaluate, jitter, one_cycle, split, train_classifier
from tlgan.models.classifier import ConvNet
from tlgan.random import generator
from tlgan.recipe import ClassifierModelSpec, ClassifierRecipe, ClassifierTrainSpec, DataSpec
from tlgan.saver import Saver


def recipe(kimg: float = 1.0, seed: int = 0, batch_size: int = 32, **train: float) -> ClassifierRecipe:
    return ClassifierRecipe(
        data=DataSpec(source="digits"),
        model=ClassifierModelSpec(width=8, features=16),
        train=ClassifierTrainSpec(kimg=kimg, batch_size=batch_size, seed=seed, **train),
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return prepare(DataSpec(source="digits"), resolution=16)


def bars(count: int = 200) -> Dataset:
    """Class 0: a horizontal bar, class 1: a vertical one, at random places."""
    images = np.zeros((count, 1, 8, 8), np.uint8)
    places = np.random.default_rng(0).integers(0, 8, count)
    for i, place in enumerate(places):
        images[(i, 0, place) if i % 2 else (i, 0, slice(None), place)] = 255
    return Dataset.from_arrays(images, np.arange(count) % 2, ("vertical", "horizontal"))


def test_learns_digits(digits: Dataset) -> None:
    network, score = train_classifier(recipe(kimg=30, batch_size=64), digits)
    assert score["accuracy"] > 0.9
    assert score["f1"] > 0.9
    assert score["majority"] < 0.2
    assert not network.training


def test_is_a_function_of_recipe_and_data(digits: Dataset) -> None:
    def state(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        network, score = train_classifier(recipe(seed=seed), digits)
        return network.state_dict(), score

    torch.manual_seed(1)
    first, score = state(0)
    torch.manual_seed(2)
    np.random.seed(2)
    second, again = state(0)
    assert score == again
    assert all(torch.equal(first[name], second[name]) for name in first)
    other, _ = state(1)
    assert not torch.equal(first["blocks.head.weight"], other["blocks.head.weight"])


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train_classifier(recipe(kimg=0.1), bars())
    assert torch.equal(torch.get_rng_state(), before)


def test_reports_as_it_goes_and_at_the_end() -> None:
    rows: list[dict[str, float]] = []
    train_classifier(recipe(kimg=2, batch_size=32), bars(), report=rows.append)
    assert [row["nimg"] for row in rows] == [1600, 2016]  # 50 steps, and 63: the budget is reached
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(math.isfinite(row["loss"]) and row["lr"] > 0 for row in rows)


def test_images_without_a_label_are_left_out() -> None:
    labelled = bars()
    images = np.concatenate([labelled.images, np.full((300, 1, 8, 8), 255, np.uint8)])
    labels = np.concatenate([labelled.labels, np.full(300, -1)])
    network, score = train_classifier(recipe(kimg=3), Dataset.from_arrays(images, labels, ("v", "h")))
    assert network.config["classes"] == 2
    assert score["accuracy"] > 0.9


def test_split_is_disjoint_seeded_and_keeps_every_class_in_training() -> None:
    labels = np.array([0] * 50 + [1] * 40 + [2] + [-1] * 9)
    train, held_out = split(labels, seed=0)
    assert len(held_out) == 9
    assert sorted([*train, *held_out]) == list(range(91))
    assert 90 in train
    np.testing.assert_array_equal(split(labels, seed=0)[1], held_out)
    assert not np.array_equal(split(labels, seed=1)[1], held_out)


def test_rare_classes_are_drawn_more_often_than_found_and_less_than_evenly() -> None:
    weights = class_weights(np.array([0] * 900 + [1] * 100)).numpy()
    assert weights[900:].sum() / weights.sum() == pytest.approx(10 / 40)


def test_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx(np.linspace(0.05, 1, 20))
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert 0 < rates[-1] < 0.01
    assert one_cycle(0, 1) == 1.0


def test_jitter_moves_each_image_a_little_and_repeats_itself() -> None:
    x = torch.zeros(64, 1, 32, 32)
    x[:, :, 12:20, 12:20] = 1
    y = jitter(x - 0.5, generator(0, "jitter")) + 0.5
    torch.testing.assert_close(y, jitter(x - 0.5, generator(0, "jitter")) + 0.5, rtol=0, atol=0)
    mass = y.clamp_min(0.25).sub(0.25).sum((1, 2, 3))
    places = torch.arange(32.0)
    centres = (y.clamp_min(0.25).sub(0.25).sum((1, 2)) * places).sum(1) / mass
    assert 0.8 < centres.std() < 2  # px: a uniform shift of 8 % of 32 px has a standard deviation of 1.5
    assert (centres - 15.5).abs().max() < 5
    assert y.min() >= -0.5
    assert y.max() <= 1.5


def test_evaluate_counts_classes_equally_in_f1() -> None:
    class Zero(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    images = Dataset.from_arrays(np.zeros((10, 1, 8, 8), np.uint8), np.array([0] * 8 + [1] * 2), ("a", "b"))
    score = evaluate(Zero(1, 1), images, np.arange(10))
    assert score == pytest.approx({"accuracy": 0.8, "f1": (2 * 8 / 18 + 0) / 2, "majority": 0.8})


def test_data_that_cannot_be_learned_is_refused() -> None:
    images = np.zeros((20, 1, 8, 8), np.uint8)
    with pytest.raises(DataError, match="at least 2 labels; received 0 labelled of 20 images") as caught:
        train_classifier(recipe(), Dataset.from_arrays(images))
    assert "CSV" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"received 20 labelled of 20 images, with 1 label\(s\)"):
        train_classifier(recipe(), Dataset.from_arrays(images, np.zeros(20), ("a",)))
    with pytest.raises(DataError, match="more than one image a label; received 20 images of 20 labels"):
        train_classifier(recipe(), Dataset.from_arrays(images, np.arange(20)))


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    with pytest.raises(DataError, match="loss is nan") as caught:
        train_classifier(recipe(kimg=2, lr=1e30), bars())
    assert "train.lr" in str(caught.value.hint)


def test_colour_images_and_odd_sizes() -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, 3, 20, 20)).astype(np.uint8)
    network, _ = train_classifier(recipe(kimg=0.1), Dataset.from_arrays(images, np.arange(40) % 4))
    assert isinstance(network, ConvNet)
    assert (network.config["channels"], network.config["resolution"], network.config["classes"]) == (3, 20, 4)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1700, 3300])
def test_stopped_and_resumed_equals_uninterrupted(stop_at: int, digits: Dataset, tmp_path: Path) -> None:
    """200 steps of 16; checkpoints every 50. Weights, moments and what is reported after, to the bit."""
    of = recipe(kimg=3.2, batch_size=16)
    told: dict[str, list[dict[str, float]]] = {"whole": [], "halves": []}

    def stop(row: dict[str, float]) -> None:
        if row["nimg"] >= stop_at:
            raise Stopped

    whole, score = train_classifier(of, digits, report=told["whole"].append)
    if stop_at <= 3200:
        with pytest.raises(Stopped), Saver(tmp_path, 2, lambda path, nimg: None) as saver:
            train_classifier(of, digits, report=stop, saver=saver)
    with Saver(tmp_path, 2, lambda path, nimg: None) as saver:
        resumed, again = train_classifier(of, digits, report=told["halves"].append, saver=saver)
    assert score == again
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    first = told["halves"][0]["nimg"]
    assert first == (3200 if stop_at <= 3200 else 800)
    assert told["halves"] == [row for row in told["whole"] if row["nimg"] >= first]
    assert checkpoint.newest(tmp_path) == tmp_path / "ckpt-000000003200"
