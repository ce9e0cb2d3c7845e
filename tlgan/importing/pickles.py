"""A reader of pickled networks that executes nothing: tensors, numbers, text and plain containers come out, all else is refused.

A pickle is a program. This one may name a dozen harmless things; the network classes it brings along as source code stay text,
and an object of such a class comes out as an `Inert` with its class's name and its fields.

It is read by the pickle module's reader in Python: the one in C reserves what a file of nine bytes asks for.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from tlgan.errors import IntegrityError

_NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")


@dataclass
class Inert:
    """An object as its pickle describes it; nothing of its class was run."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def modules(self) -> dict[str, Inert]:
        return {name: part for name, part in self._named("_modules").items() if isinstance(part, Inert)}

    def tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Parameters and buffers by dotted name, like `state_dict`."""
        found: dict[str, torch.Tensor] = {}
        for kind in ("_parameters", "_buffers"):
            for name, value in self._named(kind).items():
                if isinstance(value, torch.Tensor):
                    found[prefix + name] = value.detach()
        for name, part in self.modules.items():
            found |= part.tensors(f"{prefix}{name}.")
        return found

    def at(self, path: str) -> Inert | None:
        """The module at a dotted path."""
        here: Inert | None = self
        for name in path.split("."):
            here = here.modules.get(name) if here else None
        return here

    def _named(self, kind: str) -> dict[str, Any]:
        """Those entries of a dictionary of the state whose keys are names."""
        found = self.state.get(kind)
        return {k: v for k, v in dict.items(found) if isinstance(k, str)} if isinstance(found, dict) else {}


class _Namespace(dict[str, Any]):
    """Stands for dictionaries with attribute access."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


def _reconstruct(meta: Any, *_: Any) -> Inert:
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise pickle.UnpicklingError("a network without a state")
    if not isinstance(name := meta.get("class_name"), str):
        raise pickle.UnpicklingError("a network without a name")
    return Inert(name, dict(meta["state"]))


def _device(kind: Any, *_: Any) -> str:
    return kind if isinstance(kind, str) else ""


def _storage(data: Any) -> Any:
    """A tensor's numbers, which are a file of torch's inside the pickle; read by torch's own restricted reader."""
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a storage that is no bytes")
    with warnings.catch_warnings():  # of protocols that it may not know; it refuses what it does not
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class _Dtype:
    """A numpy type by its code, such as "f8"."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


def _scalar(dtype: Any, data: Any) -> float | int | bool:
    """A numpy number; gains are stored so."""
    if not isinstance(dtype, _Dtype) or dtype.code not in _NUMBERS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a numpy value that is no number")
    value: float | int | bool = np.frombuffer(data, dtype.code)[0].item()
    return value


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A tensor that has no more numbers than its storage: one of little could stand for a thousand gigabytes."""
    tensor: torch.Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-untyped-call]
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise pickle.UnpicklingError("a tensor that is larger than what is stored of it")
    return tensor


def _rebuild_parameter(data: Any, *_: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _reconstruct,
    ("dnnlib.util", "EasyDict"): _Namespace,
    ("dnnlib", "EasyDict"): _Namespace,
    ("argparse", "Namespace"): _Namespace,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Reader(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if module == "torch" and isinstance(value := vars(torch).get(name), torch.dtype):
            return value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of networks needs")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside of itself")

    def _build(self) -> None:
        """Gives an object its state; only those of ours take one, for the rest could hide their methods behind it."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        if isinstance(of := self.stack[-1], _Namespace | _Dtype):  # type: ignore[attr-defined]
            of.__setstate__(state)


_Reader.dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _Reader._build}  # type: ignore[dict-item]


def read_pickle(path: Path) -> Any:
    """What a `.pkl` holds. Raises `IntegrityError` for anything but tensors, plain values and networks."""
    try:
        with path.open("rb") as file:
            return _Reader(file).load()
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the reader stumble over anything
        raise refused(path, error) from None


def read_checkpoint(path: Path) -> Any:
    """What a `.pt` of `torch.save` holds, by torch's restricted reader. Raises `IntegrityError`."""
    import argparse

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise refused(path, error) from None


def is_checkpoint(path: Path) -> bool:
    """Was it written by `torch.save`? By its first bytes: people name files as they like."""
    with path.open("rb") as file:
        head = file.read(16)
    return head.startswith((b"PK\x03\x04", _OLD_CHECKPOINT))


_OLD_CHECKPOINT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def refused(path: Path, error: Exception) -> IntegrityError:
    """One line on what is wrong, in our words where torch's would tell how to run what is in the file."""
    text = str(error) or type(error).__name__
    hint = "nothing in it was executed; get the file from its authors again"
    with path.open("rb") as file:
        head = file.read(4096)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return IntegrityError(
            f"{path} is a web page, no networks", hint="open it in a browser: it says why the download failed"
        )
    if "dnnlib.tflib" in text:
        hint = "it is of the TensorFlow version: legacy.py of the StyleGAN2-ADA repository (PyTorch) converts it"
    if named := re.search(r"Unsupported (?:global|class|operand)[^.]*?([\w.]+\.\w+)", text):
        text = f"it names {named[1]}, which no file of networks needs"
    elif "weights_only" in text or "\x1b" in text:
        text = "it is damaged, or holds more than tensors and plain values"
    elif isinstance(error, EOFError | OSError) or "archive" in text:
        text = "it is empty, cut off or damaged"
    elif isinstance(error, KeyError):
        text = "it is no pickle"
    return IntegrityError(f"{path} can't be read as networks: {' '.join(text.split())[:300]}", hint=hint)
