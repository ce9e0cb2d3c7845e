"""Networks by name. One file a family; see `blocks` for what every network must offer."""

from __future__ import annotations

from typing import Any

from torch import nn

from tlgan import registry
from tlgan.random import generator
from tlgan.recipe import ModelSpec


def build_pair(spec: ModelSpec, channels: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """A freshly initialised (G, D), a function of `seed` alone; the global generator is left as it was."""
    build = registry.ARCHS.load(spec.arch)
    common = {"resolution": spec.resolution, "channels": channels, "width": spec.width}
    with seeded(seed):
        return (
            build("G", **common, latent_dim=spec.latent_dim),
            build("D", **common, spectral_norm=spec.spectral_norm),
        )


def build_network(arch: str, role: str, config: dict[str, Any]) -> nn.Module:
    """One network from its description in `model.json`; weights arbitrary, to be loaded."""
    if role == "C":
        network = registry.CLASSIFIERS.load(arch)(**config)
    else:
        network = registry.ARCHS.load(arch)(role, **config)
    return network


class seeded:  # noqa: N801 - used as a function
    """Context in which torch's global CPU generator is seeded; restored at the end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_rng_state()
        torch.manual_seed(generator(self.seed, "initialise").initial_seed())

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_rng_state(self.before)
