"""Adam, its state keyed by parameter names, and which parameters take gradients when."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tlgan.models.blocks import Network


class _Eager(torch.optim.Optimizer):
    """An optimiser's methods without what torch puts around them for `torch.compile`: that takes two seconds to import."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Adam(_Eager, torch.optim.Adam):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(_Eager, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def adam(network: Network, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    trainable = [p for p in network.parameters() if p.requires_grad]
    return Adam(trainable, lr=lr, betas=betas, fused=True)


def train_mode(network: Network) -> None:
    """Training mode, but for modules whose every parameter is frozen: their batch statistics and norms stay as they are."""
    network.train()
    if all(p.requires_grad for p in network.parameters()):
        return
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


@contextmanager
def frozen(network: Network) -> Iterator[None]:
    """No gradients for the parameters of `network` in the block; what was frozen before stays frozen after."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def optimiser_state(optimiser: torch.optim.Optimizer, network: Network) -> dict[str, Tensor]:
    """`{parameter name/slot: tensor}`: names, not positions, so runs with different frozen parts can read each other's."""
    names = {p: name for name, p in network.named_parameters()}
    return {f"{names[p]}/{slot}": value for p, slots in optimiser.state.items() for slot, value in slots.items()}


def load_optimiser_state(optimiser: torch.optim.Optimizer, network: Network, state: dict[str, Tensor]) -> None:
    slots: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = value
    held = {p for group in optimiser.param_groups for p in group["params"]}
    for name, p in network.named_parameters():
        if p in held and name in slots:
            optimiser.state[p] = {slot: _laid_out_as(p, value) for slot, value in slots[name].items()}


def _laid_out_as(p: Tensor, value: Tensor) -> Tensor:
    """A copy of an optimiser's slot with the strides of its parameter: fused Adam walks raw memory, whatever the strides say."""
    if value.shape != p.shape:
        return value.to(p.device, copy=True)
    return torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)
