"""The pickles of the StyleGAN2-ADA and StyleGAN3 repositories (stylegan2 networks): `{"G": ..., "D": ..., "G_ema": ...}`.

Conditional ones too, whose classes have no names there: they are called 0, 1, 2, ... D may be the residual one or the plain one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from tlgan.errors import IntegrityError
from tlgan.importing.naming import check_levels, fill, renamed
from tlgan.importing.pickles import Inert, read_pickle
from tlgan.models import fir
from tlgan.models.blocks import Network
from tlgan.models.stylegan2 import Discriminator, Generator, widths

MAPPING_RATE = 0.01
_LAYER = ("weight", "bias", "affine.weight", "affine.bias")

G_NAMES: list[tuple[str, str | None]] = [
    ("mapping.fc{}.weight", "blocks.mapping.layers.{}.weight"),
    ("mapping.fc{}.bias", "blocks.mapping.layers.{}.bias"),
    ("mapping.w_avg", "blocks.mapping.average"),
    ("mapping.embed.weight", "blocks.mapping.embed.weight"),
    ("mapping.embed.bias", "blocks.mapping.embed.bias"),
    ("synthesis.b{}.const", "blocks.b{}.const"),
    ("synthesis.b{}.resample_filter", None),
    ("synthesis.b{}.conv{}.resample_filter", None),
    ("synthesis.b{}.conv{}.noise_const", "blocks.b{}.conv{}.noise"),
    ("synthesis.b{}.conv{}.noise_strength", "blocks.b{}.conv{}.noise_strength"),
    *((f"synthesis.b{{}}.conv{{}}.{part}", f"blocks.b{{}}.conv{{}}.{part}") for part in _LAYER),
    *((f"synthesis.b{{}}.torgb.{part}", f"blocks.b{{}}.to_image.{part}") for part in _LAYER),
]
D_NAMES: list[tuple[str, str | None]] = [
    ("b{}.resample_filter", None),
    *((f"b{{}}.{part}.resample_filter", None) for part in ("fromrgb", "conv0", "conv1", "skip")),
    *((f"b{{}}.conv{{}}.{part}", f"blocks.b{{}}.conv{{}}.{part}") for part in ("weight", "bias")),
    *((f"b{{}}.fromrgb.{part}", f"blocks.b{{}}.from_image.{part}") for part in ("weight", "bias")),
    ("b{}.skip.weight", "blocks.b{}.skip.weight"),
    ("b4.conv.resample_filter", None),
    *((f"b4.conv.{part}", f"blocks.b4.conv.{part}") for part in ("weight", "bias")),
    *((f"b4.fc.{part}", f"blocks.b4.dense.{part}") for part in ("weight", "bias")),
    *((f"b4.out.{part}", f"blocks.b4.out.{part}") for part in ("weight", "bias")),
    *((f"mapping.fc{{}}.{part}", f"blocks.b4.mapping.layers.{{}}.{part}") for part in ("weight", "bias")),
    *((f"mapping.embed.{part}", f"blocks.b4.mapping.embed.{part}") for part in ("weight", "bias")),
]


def read(path: Path) -> dict[str, Network]:
    """G, D and G_ema of a pickle, as far as it has them. Raises `IntegrityError`."""
    content = read_pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("G_ema"), Inert):
        raise IntegrityError(f"{path} holds no G_ema", hint="expected a network pickle of StyleGAN2-ADA or StyleGAN3")
    found: dict[str, Network] = {}
    for which in ("G", "D", "G_ema"):
        if isinstance(part := content.get(which), Inert):
            found[which] = (_discriminator if which == "D" else _generator)(part, f"{path}: {which}")
    read, drawn = (found[which].config["channels"] if which in found else None for which in ("D", "G_ema"))
    if read not in (None, drawn):
        raise IntegrityError(f"{path}: D reads images of {read} channels; G_ema draws {drawn}")
    return found


def _generator(given: Inert, what: str) -> Generator:
    theirs = given.tensors()
    _check_filters(theirs, what)
    tensors, unknown = renamed(theirs, G_NAMES)
    _check_names(unknown, what)
    _check_activations(given, what)
    sizes = sorted(int(name.split(".")[1][1:]) for name in tensors if name.endswith(".to_image.weight"))
    layers = sum(name.startswith("blocks.mapping.layers.") and name.endswith(".weight") for name in tensors)
    needed = ("blocks.mapping.layers.0.weight", "blocks.mapping.average", "blocks.b4.const")
    if not sizes or any(name not in tensors for name in needed):
        raise IntegrityError(
            f"{what} has no mapping network or no levels", hint="expected StyleGAN2 with a skip generator"
        )
    check_levels(sizes[1:], what)
    _check_mapping(given, layers, what)
    conditional = _classes(tensors, "blocks.mapping.embed.weight")
    style_dim = tensors["blocks.mapping.average"].numel()
    _check_widths(tensors, sizes, what)
    at = {size: tensors[f"blocks.b{size}.to_image.weight"] for size in sizes}
    G = Generator(
        resolution=sizes[-1],
        channels=at[sizes[-1]].shape[0],
        width=at[sizes[-1]].shape[1],
        latent_dim=tensors["blocks.mapping.layers.0.weight"].shape[1] - (style_dim if conditional else 0),
        style_dim=style_dim,
        max_width=max(weight.shape[1] for weight in at.values()),
        mapping_layers=layers,
        clamp=_clamp(given.at("synthesis.b4.conv1"), what),
        **conditional,
    )
    fill(G, tensors, what)
    return G.eval().requires_grad_(False)


def _discriminator(given: Inert, what: str) -> Discriminator:
    theirs = given.tensors()
    _check_filters(theirs, what)
    tensors, unknown = renamed(theirs, D_NAMES)
    _check_names(unknown, what)
    _check_activations(given, what)
    sizes = sorted(int(name.split(".")[1][1:]) for name in tensors if name.endswith(".conv0.weight"))
    reads = tensors.get(f"blocks.b{sizes[-1]}.from_image.weight") if sizes else None
    if reads is None or "blocks.b4.conv.bias" not in tensors:
        raise IntegrityError(f"{what} reads no image or has no head", hint="expected StyleGAN2's discriminator")
    check_levels(sizes, what)
    conditional = _classes(tensors, "blocks.b4.mapping.embed.weight")
    if conditional:
        layers = sum("b4.mapping.layers." in name and name.endswith(".weight") for name in tensors)
        _check_mapping(given, layers, what)
        conditional["mapping_layers"] = layers
    D = Discriminator(
        resolution=sizes[-1],
        channels=reads.shape[1],
        width=reads.shape[0],
        max_width=max(reads.shape[0], tensors["blocks.b4.conv.bias"].numel()),
        clamp=_clamp(given.at("b4.conv"), what),
        deviation_group=_group(given.at("b4.mbstd"), what),
        residual=f"blocks.b{sizes[-1]}.skip.weight" in tensors,
        **conditional,
    )
    fill(D, tensors, what)
    return D.eval().requires_grad_(False)


def _classes(tensors: dict[str, torch.Tensor], table: str) -> dict[str, Any]:
    """Keywords of a conditional network, whose table of classes is turned to have a row a class; empty for another."""
    if table not in tensors:
        return {}
    tensors[table] = tensors[table].t()
    return {"classes": [str(number) for number in range(len(tensors[table]))]}


def _check_names(unknown: list[str], what: str) -> None:
    if any(name.startswith(("synthesis.L", "synthesis.input.")) for name in unknown):
        raise IntegrityError(
            f"{what} is a StyleGAN3", hint="of its repository's networks, the stylegan2-... ones can be imported"
        )
    if unknown:
        hint = "expected the skip generator and the residual or the plain discriminator of StyleGAN2"
        raise IntegrityError(f"{what} has {len(unknown)} tensors that are not known, {unknown[0]} for one", hint=hint)


def _check_filters(tensors: dict[str, torch.Tensor], what: str) -> None:
    taps = torch.tensor(fir.TAPS) / sum(fir.TAPS)
    for name, value in tensors.items():
        if name.endswith("resample_filter") and not _close(value, taps.outer(taps)):
            raise IntegrityError(f"{what}: {name} is another filter than [1, 3, 3, 1]")


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b, atol=1e-6)


def _check_mapping(given: Inert, layers: int, what: str) -> None:
    """The layers learn at a hundredth of the rate, which their stored numbers depend on."""
    for number in range(layers):
        layer = given.at(f"mapping.fc{number}")
        gain: Any = layer.state.get("bias_gain", MAPPING_RATE) if layer else MAPPING_RATE
        if not isinstance(gain, int | float) or not math.isclose(gain, MAPPING_RATE, rel_tol=1e-6):
            raise IntegrityError(f"{what}: mapping.fc{number} has the learning rate {gain}; expected {MAPPING_RATE}")


def _clamp(layer: Inert | None, what: str) -> float | None:
    value = layer.state.get("conv_clamp") if layer else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise IntegrityError(f"{what} clamps activations at {value!r}; expected a number > 0")
    return float(value)


def _group(layer: Inert | None, what: str) -> int | None:
    """How many images the minibatch deviation is taken over; None: all of a batch."""
    value = layer.state.get("group_size", 4) if layer else 4
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise IntegrityError(f"{what} takes the minibatch deviation over {value!r} images; expected a number >= 1")
    return value


def _check_activations(given: Inert, what: str, path: str = "") -> None:
    for name, part in given.modules.items():
        if (found := part.state.get("activation", "lrelu")) not in ("lrelu", "linear"):
            raise IntegrityError(f"{what}: {path}{name} has the activation {found!r}; expected lrelu")
        _check_activations(part, what, f"{path}{name}.")


def _check_widths(tensors: dict[str, torch.Tensor], sizes: list[int], what: str) -> None:
    """Widths are the finest level's, doubled towards the latents up to a bound."""
    found = {size: tensors[f"blocks.b{size}.to_image.weight"].shape[1] for size in sizes}
    if found != widths(sizes[-1], found[sizes[-1]], max(found.values())):
        raise IntegrityError(
            f"{what} has the widths {found}; expected each level's to be twice the next one's, up to a bound"
        )
