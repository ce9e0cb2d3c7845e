"""From the names of other programs to ours. A map is a list of (their pattern, our pattern); `{}` is a level or a number."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from tlgan.errors import IntegrityError

Tensors = dict[str, torch.Tensor]
SIDES = (32, 64, 128, 256, 512, 1024)


def renamed(tensors: Mapping[str, torch.Tensor], table: list[tuple[str, str | None]]) -> tuple[Tensors, list[str]]:
    """Tensors under our names, and theirs that no line of the table knows. A line with None drops the tensor."""
    patterns = [(re.compile(re.escape(theirs).replace(r"\{\}", r"(\d+)")), ours) for theirs, ours in table]
    found: Tensors = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        for pattern, ours in patterns:
            if match := pattern.fullmatch(name):
                if ours is not None:
                    found[ours.format(*match.groups())] = tensor
                break
        else:
            unknown.append(name)
    return found, unknown


def fill(network: torch.nn.Module, tensors: Tensors, what: str) -> None:
    """Loads all of a network's tensors, each of the right shape and finite. Raises `IntegrityError` for the first that is not."""
    own = network.state_dict()
    missing, strange = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or strange:
        word, names = ("missing", missing) if missing else ("too many", strange)
        raise IntegrityError(f"{what} is not a StyleGAN2 of this kind: {len(names)} tensors {word}, {names[0]} for one")
    for name, value in own.items():
        given = tensors[name]
        if _sides(given) != _sides(value):
            raise IntegrityError(f"{what}: {name} has the shape {list(given.shape)}; expected {list(value.shape)}")
        if not given.is_floating_point() or not given.isfinite().all():
            raise IntegrityError(f"{what}: {name} holds what are no finite numbers")
    network.load_state_dict({name: tensors[name].float().reshape(value.shape) for name, value in own.items()})


def check_levels(sizes: list[int], what: str) -> None:
    """Refuses, before anything of that size is made, levels other than 8, 16, ... up to 32 to 1024 (4 comes besides)."""
    if sizes[-1:] not in ([side] for side in SIDES) or sizes != [8 << k for k in range(len(sizes))]:
        raise IntegrityError(
            f"{what} has levels of {sizes} px; expected 8, 16, ... up to a power of two from 32 to 1024"
        )


def _sides(tensor: torch.Tensor) -> list[int]:
    """The shape without sides of one, which programs place differently."""
    return [side for side in tensor.shape if side != 1]
