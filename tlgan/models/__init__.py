"""Networks by name. One file a family; see `blocks` for what every network must offer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tlgan import registry
from tlgan.models.blocks import Network
from tlgan.models.mining import attach_miner
from tlgan.random import generator
from tlgan.recipe import ModelSpec


def build_pair(
    spec: ModelSpec, channels: int, seed: int, classes: dict[str, int] | None = None
) -> tuple[Network, Network]:
    """A freshly initialised (G, D), a function of `seed` alone; the global generator is left as it was.

    `classes`: the number of images of each, for a conditional pair.
    """
    build = registry.ARCHS.load(spec.arch)
    common: dict[str, Any] = {"resolution": spec.resolution, "channels": channels, "width": spec.width}
    if spec.conditional:
        assert classes, "a conditional pair is built for classes"
        common |= {"classes": list(classes), "class_counts": list(classes.values())}
    G, D = {"latent_dim": spec.latent_dim}, {}
    options = registry.ARCHS.facts(spec.arch)["options"]
    if "spectral_norm" in options:
        D["spectral_norm"] = spec.spectral_norm is not False
    mappings = (G, D) if spec.conditional else (G,)
    for name, owners in (
        ("style_dim", (G,)),
        ("mapping_layers", mappings),
        ("max_width", (G, D)),
        ("depth", (G, D)),
    ):
        for owner in owners if (value := getattr(spec, name)) is not None else ():
            owner[name] = value
    with seeded(seed):
        return build("G", **common, **G), build("D", **common, **D)


def build_network(arch: str, role: str, config: dict[str, Any], seed: int = 0) -> Network:
    """One network from its description in `model.json`; its weights are fresh, a function of `seed`, until loaded."""
    with seeded(seed):
        if role == "C":
            network: Network = registry.CLASSIFIERS.load(arch)(**config)
        else:
            config = dict(config)
            miner = config.pop("miner", None)
            network = registry.ARCHS.load(arch)(role, **config)
            if miner is not None:
                attach_miner(network, **miner)
        return network


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global CPU generator for the block and restores it afterwards."""
    before = torch.get_rng_state()
    torch.manual_seed(generator(seed, "initialise").initial_seed())
    try:
        yield
    finally:
        torch.set_rng_state(before)
