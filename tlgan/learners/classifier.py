"""Training of a classifier on a dataset's labels, quick enough to make a feature extractor in seconds.

AdamW, one cycle of learning rate (Smith 2018), label smoothing. Classes are drawn with weight count^-1/2, half way
between as found and balanced: a majority class can't be the whole lesson, and rare ones aren't worn out. Images are
disturbed a little, see `jitter`. Every draw is a function of (seed, step).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlgan import checkpoint, registry
from tlgan.errors import DataError
from tlgan.learners.optimisers import AdamW, load_optimiser_state, optimiser_state
from tlgan.models import seeded
from tlgan.models.classifier import ConvNet
from tlgan.random import generator
from tlgan.recipe import ClassifierRecipe
from tlgan.saver import Saver

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset

HELD_OUT = 0.1  # share of the labelled images
SMOOTHING = 0.1
SHIFT = 0.08  # of the side
ZOOM = 1.15
NOISE = 0.2  # largest standard deviation, on images in [-1, 1]
REPORT_EVERY = 50  # steps

Report = Callable[[dict[str, Any]], None]


def train_classifier(
    recipe: ClassifierRecipe,
    dataset: Dataset,
    *,
    report: Report = lambda row: None,
    device: str | torch.device = "cpu",
    saver: Saver | None = None,
) -> tuple[ConvNet, dict[str, float]]:
    """A network trained for `recipe.train.kimg`, and its score on a seeded tenth of the images, which it never saw.

    Images without a label (-1) are left out. `report` gets `{"nimg", "loss", "lr"}` every 50 steps and at the end.
    With `saver`, goes on from its newest checkpoint, to the same network as without an interruption, and saves about ten
    while it trains, each before the report of the same step.
    Returns the network in eval mode and `{"accuracy", "f1", "majority"}`: f1 is the mean over classes, majority the
    accuracy of always naming the commonest class. A function of recipe and data on one device.
    Raises `DataError` for fewer than two classes, too few labelled images, or a loss that is no longer finite.
    """
    spec = recipe.train
    train, held_out = split(dataset.labels, spec.seed)
    weights = class_weights(dataset.labels[train])
    network = _build(recipe, dataset).to(device).train()
    optimiser = AdamW(network.parameters(), lr=spec.lr, weight_decay=spec.weight_decay)
    steps = max(1, math.ceil(spec.kimg * 1000 / spec.batch_size))
    first = _resume(saver, recipe, network, optimiser) if saver else 0
    save_every = REPORT_EVERY * max(1, steps // (10 * REPORT_EVERY))
    for step in range(first, steps):
        draw = generator(spec.seed, "classifier/batch", step)
        rows = train[torch.multinomial(weights, spec.batch_size, replacement=True, generator=draw).numpy()]
        images = jitter(load_rows(dataset, rows), draw).to(device)
        labels = torch.from_numpy(dataset.labels[rows]).to(device)
        rate = spec.lr * one_cycle(step, steps)
        loss = _step(network, optimiser, images, labels, rate)
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            row = {"nimg": (step + 1) * spec.batch_size, "loss": loss.item(), "lr": rate}
            if not math.isfinite(row["loss"]):
                raise DataError(
                    f"the classifier's loss is {row['loss']} after {row['nimg']} images", hint="lower train.lr"
                )
            if saver and (step + 1) % save_every == 0:
                _save(saver, recipe, network, optimiser, step + 1)
            report(row)
    network.eval()
    return network, evaluate(network, dataset, held_out)


def _save(
    saver: Saver, recipe: ClassifierRecipe, network: ConvNet, optimiser: torch.optim.Optimizer, steps: int
) -> None:
    state = {"C": dict(network.state_dict()), "opt_C": optimiser_state(optimiser, network)}
    meta = {"recipe": recipe.digest, "fields": recipe.model_dump(mode="json"), "steps": steps}
    saver.save(steps * recipe.train.batch_size, state, meta)


def _resume(saver: Saver, recipe: ClassifierRecipe, network: ConvNet, optimiser: torch.optim.Optimizer) -> int:
    """Restores the newest sound checkpoint; the number of steps taken until then."""
    checkpoint.drop_damaged(saver.root)
    found = checkpoint.newest(saver.root)
    if found is None:
        return 0
    state, meta = checkpoint.load(found, recipe)
    network.load_state_dict(state["C"])
    load_optimiser_state(optimiser, network, state["opt_C"])
    return int(meta["steps"])


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, rate: float) -> Tensor:
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = F.cross_entropy(network(x), y, label_smoothing=SMOOTHING)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


def split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of labelled images for training and held out: disjoint, and every class has a row in training."""
    labelled = np.flatnonzero(labels >= 0)
    classes = np.unique(labels[labelled])
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs images of at least 2 labels; received {len(labelled)} labelled of {len(labels)} "
            f"images, with {len(classes)} label(s)",
            hint="use a source with labels (subfolders or a CSV for `folder`), or don't narrow `data.classes`",
        )
    order = labelled[torch.randperm(len(labelled), generator=generator(seed, "classifier/split")).numpy()]
    spare = np.delete(order, np.unique(labels[order], return_index=True)[1])  # all but the first of each class
    count = max(1, int(HELD_OUT * len(order)))
    if len(spare) < count:
        raise DataError(
            f"a classifier needs more than one image a label; received {len(labelled)} images of {len(classes)} labels"
        )
    held_out = np.sort(spare[:count])
    return np.setdiff1d(order, held_out), held_out


def class_weights(labels: np.ndarray) -> Tensor:
    """Sampling weight, float64 [N], of each image: its class's count to the power -1/2."""
    return torch.from_numpy(np.bincount(labels)[labels] ** -0.5)


def one_cycle(step: int, steps: int, warmup: float = 0.2) -> float:
    """The learning rate's factor in (0, 1]: a linear rise over `warmup` of the steps, then half a cosine down."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps + 1 - rise)))


def jitter(x_nchw: Tensor, draw: torch.Generator) -> Tensor:
    """`x_nchw` in [-1, 1] shifted and zoomed, blurred by a 3x3 mean, and noisy, each image by its own random amount.

    Features learned so tell shapes from positions. Without the blur and the noise, a trace of either, invisible to a
    person, moves the features further than a wrong shape does.
    """
    n = len(x_nchw)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.exp(_between(draw, -1, 1, n) * math.log(ZOOM))
    theta[:, :, 2] = _between(draw, -1, 1, n, 2) * 2 * SHIFT  # the grid spans [-1, 1]
    grid = F.affine_grid(theta, list(x_nchw.shape), align_corners=False)
    x = F.grid_sample(x_nchw, grid, mode="bilinear", padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x.lerp(blurred, _between(draw, 0, 1, n, 1, 1, 1))
    noise = torch.randn(x.shape, generator=draw) * _between(draw, 0, NOISE, n, 1, 1, 1)
    return (x + noise).clamp(-1, 1)


def _between(draw: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=draw)


@torch.no_grad()
def evaluate(network: nn.Module, dataset: Dataset, rows: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-F1 over the classes that occur in `rows`, and the majority class's share of `rows`."""
    device = next(network.parameters()).device
    parts = np.array_split(rows, math.ceil(len(rows) / 512))
    guess = np.concatenate([network(load_rows(dataset, p).to(device)).argmax(1).cpu().numpy() for p in parts])
    truth = dataset.labels[rows]
    f1 = [
        2 * np.sum((guess == label) & (truth == label)) / (np.sum(guess == label) + np.sum(truth == label))
        for label in np.unique(truth)
    ]
    majority = np.bincount(truth).max() / len(truth)
    return {"accuracy": float(np.mean(guess == truth)), "f1": float(np.mean(f1)), "majority": float(majority)}


def load_rows(dataset: Dataset, rows: np.ndarray) -> Tensor:
    """float32 [n, C, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(dataset.images[rows])).float().div_(127.5).sub_(1)


def _build(recipe: ClassifierRecipe, dataset: Dataset) -> ConvNet:
    spec = recipe.model
    classes = max(len(dataset.label_names), int(dataset.labels.max()) + 1)
    if dataset.channels not in (1, 3):
        raise DataError(
            f"a classifier reads images of 1 or 3 channels; received {dataset.channels}", hint="set data.channels to 3"
        )
    shape = {"resolution": dataset.resolution, "channels": dataset.channels}
    with seeded(recipe.train.seed):
        network = registry.CLASSIFIERS.load(spec.arch)(
            **shape, classes=classes, width=spec.width, features=spec.features
        )
    assert isinstance(network, nn.Module)
    return network
