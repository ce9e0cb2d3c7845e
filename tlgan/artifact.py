"""What a published model is: a directory with `model.json` and one safetensors file a block.

    model.json                   format, type, how to rebuild each network, which file holds which block
    G_ema/b4.safetensors ...     the weights of one block, names as inside the network
    G_ema/vectors.safetensors    what has one dimension or none, of all blocks: biases, scales and shifts, statistics, norms

Blocks are files so that a store which addresses files by content keeps a frozen block once, however many children share it.
Vectors are a thousandth of the bytes and change in blocks whose weights don't, as when only scales and shifts train.
Models saved with each block's vectors in its own file load all the same. Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tlgan.errors import IntegrityError, NotFound, SpecError
from tlgan.models import build_network
from tlgan.models.adapters import plain
from tlgan.models.blocks import Network

MODEL_FORMAT = 1
VECTORS = "vectors"


def save_networks(
    dest: Path, networks: Mapping[str, Network], *, type: str, extra: Mapping[str, Any] | None = None
) -> None:
    """Write `networks` (such as {"G": ..., "D": ..., "G_ema": ...}) below `dest`, one file a block, and `model.json`.

    Adapters are merged into the weights and heads left out: what is written loads as the plain network.
    """
    described: dict[str, Any] = {}
    for which, network in networks.items():
        network, files = plain(network), {}
        (dest / which).mkdir(parents=True, exist_ok=True)
        for part, tensors in _parts(network).items():
            files[part] = f"{which}/{part}.safetensors"
            save_file(tensors, dest / files[part])
        described[which] = {"arch": network.arch, "role": network.role, "config": network.config, "blocks": files}
    document = {"format": MODEL_FORMAT, "type": type, "networks": described, **(extra or {})}
    (dest / "model.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def _parts(network: Network) -> dict[str, dict[str, torch.Tensor]]:
    """File -> tensors: the weights of each block, and the vectors of all."""
    assert VECTORS not in network.blocks, f"{VECTORS} is no name for a block"
    parts: dict[str, dict[str, torch.Tensor]] = {part: {} for part in [*network.blocks, VECTORS]}
    for name, tensor in network.state_dict().items():
        owner, _, inside = name.partition(".")
        assert owner == "blocks", f"a tensor outside blocks would be lost: {name}"
        part = inside.partition(".")[0] if tensor.dim() > 1 else VECTORS
        parts[part][name] = tensor.detach().cpu().contiguous()
    return {part: tensors for part, tensors in parts.items() if tensors}


def describe(path: Path) -> dict[str, Any]:
    """The parsed `model.json` of a model directory. Raises `NotFound`, `IntegrityError` or `SpecError`."""
    file = Path(path) / "model.json"
    if not file.is_file():
        raise NotFound(f"{path} holds no model.json", hint="expected the directory that `tlgan pull` printed")
    try:
        document = json.loads(file.read_text())
        version = document["format"]
        well_formed = version != MODEL_FORMAT or isinstance(document["networks"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{file} is not a model description: {error}") from error
    if version != MODEL_FORMAT:
        raise SpecError(f"{file} has format {version}; this tlgan reads {MODEL_FORMAT}", hint="upgrade tlgan")
    if not well_formed:
        raise IntegrityError(f"{file} is not a model description: its networks are no object")
    return dict(document)


def load_network(path: Path | str, which: str) -> Network:
    """Network `which` of a model directory, rebuilt from `model.json` alone, in eval mode on the CPU."""
    path = Path(path)
    networks = describe(path)["networks"]
    if which not in networks:
        raise NotFound(f"{path} holds no network {which}; it holds {', '.join(networks)}")
    about = networks[which]
    try:
        network = build_network(about["arch"], about["role"], about["config"])
        files = [str(file) for file in about["blocks"].values()]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise IntegrityError(f"{path}/model.json does not describe network {which}: {error!r}") from error
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors.update(_read_block(path, file))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise IntegrityError(f"{path}/{which} does not fit its own description: {error}") from error
    return network.eval().requires_grad_(False)


def _read_block(path: Path, file: str) -> dict[str, torch.Tensor]:
    target = (path / file).resolve()
    if not target.is_relative_to(path.resolve()):
        raise IntegrityError(f"{path}/model.json names a file outside of the artifact: {file}")
    try:
        return load_file(target)
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{target} can't be read: {error}", hint="pull the artifact again") from error


def load_generator(path: Path | str) -> Network:
    """The generator to sample from (moving-average weights), in eval mode. `path` is what `pull` returned."""
    return load_network(path, "G_ema")
