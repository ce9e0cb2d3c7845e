"""Files of weights that others trained: given by path, checked to be plain tensors before anything is built from them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tlgan.errors import DataError, NotFound


def read_weights(file: Path, what: str, where: str) -> dict[str, Tensor]:
    """`{name: tensor}` of a `.pth` file; nothing in it is executed. `where` says how to get it.

    Raises `NotFound`, or `DataError` for what is no dictionary of tensors.
    """
    if not file.is_file():
        raise NotFound(f"{what} weights {file}: there is no such file", hint=where)
    try:
        state = torch.load(file, weights_only=True, map_location="cpu", mmap=False)
    except Exception as error:  # a broken or unsafe file raises whatever its bytes lead to
        raise DataError(f"{file} is not a file of weights: {str(error).splitlines()[0]}", hint=where) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{file} holds no dictionary of tensors", hint=where)
    return state


def load_into(network: torch.nn.Module, state: dict[str, Tensor], file: Path, what: str, where: str) -> None:
    """Raises `DataError` when the tensors are not those of `network`."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise DataError(f"{file} does not hold {what}: {first}", hint=where) from error
