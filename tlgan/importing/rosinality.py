"""Checkpoints of the widespread independent implementation (`{"g": ..., "d": ..., "g_ema": ...}` of state dictionaries).

Its convolutions in G scale their weights before they are styled; here the scale is put into the weights, so that the
demodulation's epsilon weighs the same. It stores no average style: `latent_avg` where a checkpoint has one, else the mean of
10 000 styles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tlgan.errors import IntegrityError
from tlgan.importing.naming import Tensors, check_levels, fill, renamed
from tlgan.importing.pickles import read_checkpoint
from tlgan.models import fir
from tlgan.models.blocks import Network
from tlgan.models.stylegan2 import Discriminator, Generator
from tlgan.random import latents

AVERAGED = 10_000
_PARTS = (
    ("conv.weight", "weight"),
    ("conv.modulation.weight", "affine.weight"),
    ("conv.modulation.bias", "affine.bias"),
)


def read(path: Path) -> dict[str, Network]:
    """G, D and G_ema of a checkpoint, as far as it has them. Raises `IntegrityError`."""
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not isinstance(content.get("g_ema"), Mapping):
        raise IntegrityError(f"{path} holds no g_ema", hint="expected a .pt with the state dictionaries g, d and g_ema")
    average = content.get("latent_avg")
    found: dict[str, Network] = {}
    for theirs, which in (("g", "G"), ("d", "D"), ("g_ema", "G_ema")):
        if isinstance(given := content.get(theirs), Mapping):
            tensors = {str(name): value for name, value in given.items() if isinstance(value, torch.Tensor)}
            what = f"{path}: {theirs}"
            found[which] = _discriminator(tensors, what) if which == "D" else _generator(tensors, average, what)
    return found


def _generator(theirs: Tensors, average: Any, what: str) -> Generator:
    levels = sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight") for name in theirs)
    mapping = sum(name.startswith("style.") and name.endswith(".weight") for name in theirs)
    last = theirs.get(f"to_rgbs.{levels - 1}.conv.weight")
    needed = ("style.1.weight", "input.input", "conv1.conv.weight")
    if not levels or last is None or any(name not in theirs for name in needed):
        raise IntegrityError(f"{what} is no generator of StyleGAN2: it has no style, input or to_rgbs")
    check_levels([8 << level for level in range(levels)], what)
    tensors, unknown = renamed(theirs, _g_names(levels, mapping))
    if unknown:
        raise IntegrityError(f"{what} has {len(unknown)} tensors that are not known, {unknown[0]} for one")
    _check_kernels(theirs, what)
    for name, value in tensors.items():
        if name.endswith((".conv0.weight", ".conv1.weight")):
            tensors[name] = value.float() * (1 / math.sqrt(value[0, 0].numel()))
    G = Generator(
        resolution=4 << levels,
        channels=last.shape[1],
        width=last.shape[2],
        latent_dim=theirs["style.1.weight"].shape[1],
        style_dim=theirs[f"style.{mapping}.weight"].shape[0],
        max_width=theirs["input.input"].shape[1],
        mapping_layers=mapping,
    )
    stored = average if isinstance(average, torch.Tensor) else None
    tensors["blocks.mapping.average"] = torch.zeros(G.config["style_dim"]) if stored is None else stored
    fill(G, tensors, what)
    G.eval().requires_grad_(False)
    if stored is None:
        G.state_dict()["blocks.mapping.average"].copy_(G.styles(latents(0, 0, AVERAGED, G.latent_dim))[:, 0].mean(0))
    return G


def _g_names(levels: int, mapping: int) -> list[tuple[str, str | None]]:
    table: list[tuple[str, str | None]] = [("input.input", "blocks.b4.const")]
    for number in range(mapping):
        for part in ("weight", "bias"):
            table.append((f"style.{number + 1}.{part}", f"blocks.mapping.layers.{number}.{part}"))
    convs = [("conv1", "blocks.b4.conv1", 0)]
    images = [("to_rgb1", "blocks.b4.to_image")]
    for level in range(levels):
        block = f"blocks.b{8 << level}"
        convs += [(f"convs.{2 * level + k}", f"{block}.conv{k}", 2 * level + k + 1) for k in (0, 1)]
        images.append((f"to_rgbs.{level}", f"{block}.to_image"))
    for theirs, ours, number in convs:
        table += [(f"{theirs}.{part}", f"{ours}.{own}") for part, own in _PARTS]
        table += [(f"{theirs}.noise.weight", f"{ours}.noise_strength"), (f"{theirs}.activate.bias", f"{ours}.bias")]
        table += [(f"noises.noise_{number}", f"{ours}.noise"), (f"{theirs}.conv.blur.kernel", None)]
    for theirs, ours in images:
        table += [(f"{theirs}.{part}", f"{ours}.{own}") for part, own in _PARTS]
        table += [(f"{theirs}.bias", f"{ours}.bias"), (f"{theirs}.upsample.kernel", None)]
    return table


def _discriminator(theirs: Tensors, what: str) -> Discriminator:
    levels = sum(name.startswith("convs.") and name.endswith(".conv1.0.weight") for name in theirs)
    reads = theirs.get("convs.0.0.weight")
    if not levels or reads is None or "final_conv.1.bias" not in theirs:
        raise IntegrityError(f"{what} is no discriminator of StyleGAN2: it has no convs or final_conv")
    check_levels([8 << level for level in range(levels)], what)
    table: list[tuple[str, str | None]] = []
    top = f"blocks.b{4 << levels}.from_image"
    table += [("convs.0.0.weight", f"{top}.weight"), ("convs.0.1.bias", f"{top}.bias")]
    for number in range(1, levels + 1):
        block, at = f"blocks.b{(8 << levels) >> number}", f"convs.{number}"
        table += [(f"{at}.conv1.0.weight", f"{block}.conv0.weight"), (f"{at}.conv1.1.bias", f"{block}.conv0.bias")]
        table += [(f"{at}.conv2.1.weight", f"{block}.conv1.weight"), (f"{at}.conv2.2.bias", f"{block}.conv1.bias")]
        table += [(f"{at}.skip.1.weight", f"{block}.skip.weight")]
        table += [(f"{at}.conv2.0.kernel", None), (f"{at}.skip.0.kernel", None)]
    table += [("final_conv.0.weight", "blocks.b4.conv.weight"), ("final_conv.1.bias", "blocks.b4.conv.bias")]
    for number, ours in ((0, "dense"), (1, "out")):
        table += [(f"final_linear.{number}.{part}", f"blocks.b4.{ours}.{part}") for part in ("weight", "bias")]
    tensors, unknown = renamed(theirs, table)
    if unknown:
        raise IntegrityError(f"{what} has {len(unknown)} tensors that are not known, {unknown[0]} for one")
    _check_kernels(theirs, what)
    D = Discriminator(
        resolution=4 << levels,
        channels=reads.shape[1],
        width=reads.shape[0],
        max_width=max(reads.shape[0], theirs["final_conv.1.bias"].numel()),
    )
    fill(D, tensors, what)
    return D.eval().requires_grad_(False)


def _check_kernels(tensors: Tensors, what: str) -> None:
    taps = torch.tensor(fir.TAPS) / sum(fir.TAPS)
    for name, value in tensors.items():
        if name.endswith(".kernel"):
            kernel = value.float() / value.float().sum()
            if kernel.shape != (4, 4) or not torch.allclose(kernel, taps.outer(taps), atol=1e-6):
                raise IntegrityError(f"{what}: {name} is another filter than [1, 3, 3, 1]")
