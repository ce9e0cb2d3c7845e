"""Files as other programs write them, made from our own networks: same modules, same names, same way of pickling."""

from __future__ import annotations

import math
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlgan.models.stylegan2 import Discriminator, Generator

FILTER = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


class Node(nn.Module):
    """A module that pickles as the persistent classes do: class name, source text and fields, rebuilt by one function."""

    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        namespace = sys.modules["dnnlib.util"].EasyDict
        meta = namespace(type="class", version=6, module_src="import os", class_name="Any", state=dict(self.__dict__))
        return rebuild, (meta,), None


def official_modules() -> dict[str, types.ModuleType]:
    """Stand-ins of the modules that the pickles name; needed to write one, not to read one."""
    utils, persistence = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    base, dnnlib = types.ModuleType("dnnlib"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("nothing of the pickle may be run")

    class EasyDict(dict):  # type: ignore[type-arg]
        pass

    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    _reconstruct_persistent_obj.__qualname__, EasyDict.__qualname__ = "_reconstruct_persistent_obj", "EasyDict"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    dnnlib.EasyDict = EasyDict  # type: ignore[attr-defined]
    return {"torch_utils": utils, "torch_utils.persistence": persistence, "dnnlib": base, "dnnlib.util": dnnlib}


def put(root: Node, path: str, value: Tensor, *, buffer: bool = False) -> None:
    *parts, leaf = path.split(".")
    here: nn.Module = root
    for part in parts:
        if part not in here._modules:
            here.add_module(part, Node())
        here = here._modules[part]  # type: ignore[assignment]
    if buffer:
        here.register_buffer(leaf, value)
    else:
        here.register_parameter(leaf, nn.Parameter(value))


def official(network: Generator | Discriminator, clamp: float | None = None) -> Node:
    """The module tree that the authors' programs would hold."""
    root = Node()
    for name, value in network.state_dict().items():
        name = name.removeprefix("blocks.")
        if network.role == "G":
            name = re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", name).replace("mapping.average", "mapping.w_avg")
            name = re.sub(r"^b(\d+)", r"synthesis.b\1", name).replace("to_image", "torgb")
            name = re.sub(r"\.noise$", ".noise_const", name)
        else:
            name = name.replace("from_image", "fromrgb").replace("b4.dense", "b4.fc")
            name = re.sub(r"^b4\.mapping\.layers\.(\d+)", r"mapping.fc\1", name).replace("b4.mapping", "mapping")
        if name == "mapping.embed.weight":
            value = value.t()
        put(root, name, value.clone(), buffer=name.endswith(("noise_const", "w_avg")))
    for path, module in list(root.named_modules()):
        if re.search(r"(conv\d?|skip|fromrgb)$", path):
            module.register_buffer("resample_filter", FILTER.clone())
            module.conv_clamp = None if path.endswith("skip") else clamp
            module.activation = "linear" if path.endswith("skip") else "lrelu"
        if re.search(r"mapping\.fc\d+$", path):
            module.weight_gain = 0.01 / np.sqrt(module.weight.shape[1])
            module.bias_gain = 0.01
    if network.role == "D":
        root.b4.mbstd = Node()
        root.b4.mbstd.group_size, root.b4.mbstd.num_channels = network.config.get("deviation_group", 4), 1
    return root


def write_official(path: Path, **networks: Generator | Discriminator) -> None:
    """Needs `official_modules` in `sys.modules`."""
    content: dict[str, Any] = {which: official(network) for which, network in networks.items()}
    content["training_set_kwargs"] = sys.modules["dnnlib.util"].EasyDict(
        class_name="training.dataset.X", max_size=np.int64(7)
    )
    content["augment_pipe"] = None
    path.write_bytes(pickle.dumps(content))


def independent(G: Generator, D: Discriminator) -> dict[str, dict[str, Tensor]]:
    """State dictionaries under the names of the other implementation, whose weights are `sqrt(inputs)` larger in G."""
    g: dict[str, Tensor] = {}
    levels = [int(name[1:]) for name in G.blocks if name != "mapping"]
    for name, value in G.state_dict().items():
        name = name.removeprefix("blocks.")
        if match := re.fullmatch(r"mapping\.layers\.(\d+)\.(\w+)", name):
            g[f"style.{int(match[1]) + 1}.{match[2]}"] = value
        elif name == "b4.const":
            g["input.input"] = value[None]
        elif match := re.fullmatch(r"b(\d+)\.(conv\d|to_image)\.(.+)", name):
            _g_layer(g, levels.index(int(match[1])), match[2], match[3], value)
    d: dict[str, Tensor] = {}
    order = [name for name in D.blocks if name != "b4"]
    for name, value in D.state_dict().items():
        block, layer, part = name.removeprefix("blocks.").split(".")
        if block == "b4":
            number = {"conv": 0, "dense": 0, "out": 1}[layer]
            d[f"final_conv.{int(part == 'bias')}.{part}" if layer == "conv" else f"final_linear.{number}.{part}"] = (
                value
            )
        elif layer == "from_image":
            d[f"convs.0.{int(part == 'bias')}.{part}"] = value
        else:
            at = f"convs.{order.index(block) + 1}"
            theirs, first = {"conv0": ("conv1", 0), "conv1": ("conv2", 1), "skip": ("skip", 1)}[layer]
            d[f"{at}.{theirs}.{first + int(part == 'bias')}.{part}"] = value
            if first:
                d[f"{at}.{theirs}.0.kernel"] = FILTER
    return {"g": g, "g_ema": g, "d": d}


def _g_layer(g: dict[str, Tensor], level: int, layer: str, part: str, value: Tensor) -> None:
    if layer == "to_image":
        at = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        if level:
            g[f"{at}.upsample.kernel"] = FILTER * 4
    else:
        number = int(layer[-1])
        at = "conv1" if level == 0 else f"convs.{2 * (level - 1) + number}"
        if part == "noise":
            g[f"noises.noise_{0 if level == 0 else 2 * (level - 1) + number + 1}"] = value[None, None]
            return
        if number == 0:
            g[f"{at}.conv.blur.kernel"] = FILTER * 4
    if part == "weight":
        scale = 1.0 if layer == "to_image" else math.sqrt(value[0].numel())
        g[f"{at}.conv.weight"] = value[None] * scale
    elif part.startswith("affine."):
        g[f"{at}.conv.modulation.{part.removeprefix('affine.')}"] = value
    elif part == "noise_strength":
        g[f"{at}.noise.weight"] = value[None]
    elif layer == "to_image":
        g[f"{at}.bias"] = value[None, :, None, None]
    else:
        g[f"{at}.activate.bias"] = value
