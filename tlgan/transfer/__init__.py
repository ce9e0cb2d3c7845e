"""Transfer: networks of a parent artifact become the start of a new training. One file a method; see `method`."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlgan import registry
from tlgan.artifact import load_network
from tlgan.data.image import ALPHA
from tlgan.models import build_network
from tlgan.models.blocks import Network
from tlgan.models.labels import ClassTable
from tlgan.recipe import Recipe
from tlgan.transfer.method import Method


@dataclass
class Coverage:
    """What became of each of the child's tensors, by network: taken over, taken over in another shape, or left fresh."""

    matched: dict[str, int] = field(default_factory=dict)
    reshaped: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    trainable: dict[str, int] = field(default_factory=dict)
    frozen: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Start:
    """Networks to train from, ready for a learner, and how much of the parent is in them."""

    G: Network
    D: Network
    G_ema: Network
    coverage: Coverage


def start_from(parent: Path, recipe: Recipe, channels: int, classes: dict[str, int] | None = None) -> Start:
    """Networks of `parent` fitted to `channels` image channels and prepared by the recipe's transfer method.

    Conditional ones to `classes` (images of each): a class of a name that the parent knows starts as the parent's, another as
    the mean of the parent's classes.

    G and its moving average both start from the parent's average, the better generator. Optimisers start fresh.
    """
    assert recipe.transfer is not None
    coverage = Coverage()
    changes: dict[str, Any] = {"channels": channels}
    if classes:
        changes |= {"classes": list(classes), "class_counts": list(classes.values())}
    G = _adapt(load_network(parent, "G_ema"), "G", changes, recipe.train.seed, coverage)
    D = _adapt(load_network(parent, "D"), "D", changes, recipe.train.seed, coverage)
    for network in (G, D):
        network.requires_grad_(True)
    method_of(recipe).prepare(G, D)
    G_ema = copy.deepcopy(G)
    coverage.matched["G_ema"] = coverage.matched["G"]
    coverage.reshaped["G_ema"], coverage.missing["G_ema"] = coverage.reshaped["G"], coverage.missing["G"]
    for which, network in (("G", G), ("D", D)):
        counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
        coverage.trainable[which] = sum(n for n, trains in counts if trains)
        coverage.frozen[which] = sum(n for n, trains in counts if not trains)
    return Start(G, D, G_ema, coverage)


def method_of(recipe: Recipe) -> Method:
    """The transfer method; without a transfer section, one that leaves everything as it is."""
    if recipe.transfer is None:
        return Method(recipe)
    method: Method = registry.TRANSFERS.load(recipe.transfer.method)(recipe)
    return method


def _adapt(source: Network, which: str, changes: dict[str, Any], seed: int, coverage: Coverage) -> Network:
    """A network like `source` but for `changes` of its config; tensors copied, fitted to channels and classes, or fresh."""
    network = build_network(source.arch, source.role, {**source.config, **changes}, seed)
    tables = {name: module for name, module in network.named_modules() if isinstance(module, ClassTable)}
    own, theirs = network.state_dict(), source.state_dict()
    matched: dict[str, Tensor] = {}
    reshaped: dict[str, Tensor] = {}
    writers = sum(own[name].dim() == 1 and own[name].shape != theirs[name].shape for name in own if name in theirs)
    for name in (name for name in own if name in theirs):
        table = next((module for at, module in tables.items() if name.startswith(f"{at}.")), None)
        if table is not None and network.classes != source.classes and own[name].dim() == 2:
            rows = fit_classes(theirs[name], source.classes, network.classes)
            rows *= math.sqrt(len(network.classes) / len(source.classes)) if table.equalised else 1
            reshaped |= {name: rows, **_spectral_vectors(name, rows)}
        elif own[name].shape == theirs[name].shape:
            matched[name] = theirs[name]
        elif (fitted := fit_channels(theirs[name], own[name].shape, source, 1 / max(writers, 1))) is not None:
            reshaped |= {name: fitted, **_spectral_vectors(name, fitted)}
    network.load_state_dict({**own, **matched, **reshaped})
    coverage.matched[which] = len(matched.keys() - reshaped.keys())
    coverage.reshaped[which] = [name for name in own if name in reshaped]
    coverage.missing[which] = [name for name in own if name not in matched | reshaped]
    return network


def _spectral_vectors(name: str, weight: Tensor) -> dict[str, Tensor]:
    """For a weight under spectral normalisation, its first singular vectors: a frozen block would never find them by itself."""
    module, marker, _ = name.rpartition(".original")
    if not marker:
        return {}
    u, _, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return {f"{module}.0._u": u[:, 0].contiguous(), f"{module}.0._v": v[0].contiguous()}


def fit_classes(table: Tensor, old: list[str], new: list[str]) -> Tensor:
    """Rows of a class table for other classes, `[old, F] -> [new, F]`: those of the same name, or the mean of all."""
    mean = table.mean(0)
    return torch.stack([table[old.index(name)] if name in old else mean for name in new])


def fit_channels(tensor: Tensor, shape: torch.Size, source: Network, opaque: float) -> Tensor | None:
    """A weight or bias for other image channels; None when it can't be made to fit.

    Colours are averaged (3 to 1) or repeated (1 to 3). Grey images give about the same response before and after: a reading
    layer's weights are scaled by old / new channels, by its root where the layer itself scales (under spectral
    normalisation, that response times a constant). Alpha, the last of 2 or 4 channels, is taken over; where the parent has
    none, D begins without looking at it and G draws it nearly opaque (`opaque`: the share of each bias that it is made of).
    """
    differing = [axis for axis, (a, b) in enumerate(zip(tensor.shape, shape, strict=False)) if a != b]
    if tensor.dim() != len(shape) or len(differing) != 1 or (source.role == "D" and tensor.dim() == 1):
        return None  # nothing of one dimension in D counts image channels
    axis = differing[0]
    old, new = tensor.shape[axis], shape[axis]
    if not {old, new} <= {1, 2, 3, 4}:
        return None
    colours, wanted = (count - (count in ALPHA) for count in (old, new))
    own_scale = (new / old) ** 0.5 if source.role == "D" and source.equalised else 1.0
    colour = tensor.narrow(axis, 0, colours)
    if colours != wanted:
        colour = colour.mean(axis, keepdim=True).repeat_interleave(wanted, axis)
    scale = own_scale * colours / wanted if source.role == "D" else 1.0
    if new not in ALPHA:
        return colour * scale
    if old in ALPHA:
        alpha = tensor.narrow(axis, colours, 1) * own_scale
    else:
        alpha = torch.full_like(colour.narrow(axis, 0, 1), opaque if tensor.dim() == 1 else 0.0)
    return torch.cat([colour * scale, alpha], axis)
