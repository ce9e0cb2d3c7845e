"""Adapters: small trained changes of a network's weights, and extra heads. Published networks are `plain`: merged, without heads.

An adapter is a parametrisation of a module's `weight` that gives the weight itself at the start. Legend: `o` and `i` are output
and input channels of a kernel, whatever their order in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tlgan.models.blocks import Network


class Adapter(nn.Module):
    """`forward(weight)` gives the weight to use. Made by `Adapter(weight, output_axis)`."""


class KernelScaleShift(Adapter):
    """AdaFM (Zhao, Cong, Carin 2020): a scale and a shift for each kernel, `W_oi * gamma_oi + beta_oi`."""

    def __init__(self, weight: Tensor, output_axis: int) -> None:
        super().__init__()
        shape = (*weight.shape[:2], *[1] * (weight.dim() - 2))
        self.gamma, self.beta = nn.Parameter(weight.new_ones(shape)), nn.Parameter(weight.new_zeros(shape))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.gamma + self.beta


class SingularValues(Adapter):
    """Few-shot GAN (Robb et al. 2020): of W = U S V, as a matrix `[o, i * k * k]`, only the singular values change."""

    def __init__(self, weight: Tensor, output_axis: int) -> None:
        super().__init__()
        self.axis = output_axis
        left, values, right = torch.linalg.svd(weight.detach().movedim(output_axis, 0).flatten(1), full_matrices=False)
        self.change = nn.Parameter(torch.zeros_like(values))
        self.register_buffer("left", left.contiguous())
        self.register_buffer("right", right.contiguous())

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            change = (self.left * self.change) @ self.right
        rows = weight.movedim(self.axis, 0)
        return weight + change.view(rows.shape).movedim(0, self.axis)


class KernelModulation(Adapter):
    """AdAM's (Zhao et al. 2022): kernels W_o are kept and modulated by a matrix of low rank, `W_oi * (1 + (A B)_oi)`.

    Only the kernels in `chosen` `[o]`, at first all; the others are trained themselves.
    """

    chosen: Tensor

    def __init__(self, weight: Tensor, output_axis: int, rank: int) -> None:
        super().__init__()
        self.axis = output_axis
        outputs, inputs = weight.movedim(output_axis, 0).shape[:2]
        self.A = nn.Parameter(weight.new_zeros(outputs, rank))
        self.B = nn.Parameter(torch.randn(rank, inputs).to(weight) / rank**0.5)
        self.register_buffer("chosen", torch.ones(outputs, dtype=torch.bool, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.movedim(self.axis, 0)
        beyond = (1,) * (rows.dim() - 2)
        with torch.autocast(weight.device.type, enabled=False):
            factors = 1 + (self.A @ self.B).view(*rows.shape[:2], *beyond)
        chosen = self.chosen.view(-1, 1, *beyond)
        return torch.where(chosen, rows.detach() * factors, rows).movedim(0, self.axis)


def adapt(block: nn.Module, make: Callable[[Tensor, int], Adapter], least_dims: int = 4) -> None:
    """Puts an adapter on every weight in `block` of at least `least_dims` dimensions (4: kernels; 2: matrices too).

    Under a spectral normalisation, which then normalises what the adapter gives.
    """
    for module in list(block.modules()):
        axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        if (held := _parametrised(module)) is not None:
            if held.original.dim() >= least_dims:
                held.insert(0, make(held.original, axis))
        elif isinstance(weight := getattr(module, "weight", None), nn.Parameter) and weight.dim() >= least_dims:
            parametrize.register_parametrization(module, "weight", make(weight, axis))


def _parametrised(module: nn.Module) -> parametrize.ParametrizationList | None:
    """What stands between a module's stored weight and the one it uses, in order; None for nothing."""
    held = getattr(module, "parametrizations", None)
    if held is None or "weight" not in held:
        return None
    return held["weight"]


def adapters(network: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """Adapters with the names of what they adapt."""
    for name, module in network.named_modules():
        if isinstance(module, Adapter):
            yield name.partition(".parametrizations.")[0], module


def plain(network: Network) -> Network:
    """The network as its `config` builds it: adapters merged into weights, heads left out. `network` itself is left alone.

    Built anew: a copy shares the class that torch made for a parametrised module, and can't take it off alone.
    """
    adapted = {name: held for name, module in network.named_modules() if (held := _adapted(module)) is not None}
    if not adapted and not hasattr(network, "heads"):
        return network
    from tlgan.models import build_network

    state = {name: t for name, t in network.state_dict().items() if not name.startswith("heads.")}
    for name, held in adapted.items():
        inside = f"{name}.parametrizations.weight."
        rest = {key: state.pop(key) for key in list(state) if key.startswith(inside)}
        alone = len(held) == 1
        state[f"{name}.weight" if alone else f"{inside}original"] = held[0](held.original).detach()
        for key, value in rest.items():  # what comes after the adapter moves up
            number, _, slot = key.removeprefix(inside).partition(".")
            if number.isdecimal() and int(number) > 0:
                state[f"{inside}{int(number) - 1}.{slot}"] = value
    fresh = build_network(network.arch, network.role, network.config)
    fresh.load_state_dict(state)
    return fresh.to(next(network.parameters()).device, memory_format=torch.channels_last).train(network.training)


def _adapted(module: nn.Module) -> parametrize.ParametrizationList | None:
    held = _parametrised(module)
    return held if held is not None and isinstance(held[0], Adapter) else None
