"""Any image dataset of `torchvision.datasets`, as `torchvision:<Name>`.

Where the dataset comes in official parts, `split` chooses among them (`all` joins them) and `test_share` is not used.
Images smaller than the resolution are enlarged, for MNIST's 28 px at 32 px is what everybody does.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import redirect_stdout
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tlgan.data import cache_root
from tlgan.data.cache import only_one
from tlgan.data.image import ALPHA, GREY_MODES, fit
from tlgan.data.source import NO_LABEL, BrokenImage, UInt8Array
from tlgan.errors import DataError, did_you_mean
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution

# Arguments without which a dataset can't be built, chosen so that the name alone is enough.
_FIXED: dict[str, dict[str, Any]] = {"EMNIST": {"split": "balanced"}}
# What the training and the test part are called, where it is not "train" and "test".
_PART_NAMES = {
    "CLEVRClassification": ("train", "val"),
    "FGVCAircraft": ("trainval", "test"),
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}
_LYING = frozenset({"EMNIST"})  # stored with rows and columns exchanged


class Torchvision:
    """`path` is the datasets' root directory (default: in the cache); `download: true` fetches what is missing."""

    parallel = False
    own_split: bool

    def __init__(self, spec: DataSpec) -> None:
        self._split, self._download = spec.split, spec.download
        self._alpha = spec.channels if spec.channels in ALPHA else None
        self.name = (spec.source or "").partition(":")[2]
        self.root = Path(spec.path).expanduser() if spec.path else cache_root() / "torchvision"
        self._class = dataset_class(self.name)
        self._accepted = _parameters(self._class)
        fixed = _FIXED.get(self.name, {})
        self._part = next((p for p in ("train", "split") if p in self._accepted and p not in fixed), None)
        self.own_split = self._part is not None

    @cached_property
    def _parts(self) -> list[Any]:
        """The opened datasets that are joined, in order."""
        if self._part is None:
            return [self._open({})]
        train, test = (True, False) if self._part == "train" else _PART_NAMES.get(self.name, ("train", "test"))
        wanted = {"all": [train, test], "train": [train], "test": [test]}[self._split]
        return [self._open({self._part: value}) for value in wanted]

    def _open(self, part: dict[str, Any]) -> Any:
        given = {"root": str(self.root), "download": self._download}
        arguments = {name: value for name, value in given.items() if name in self._accepted}
        try:
            with redirect_stdout(sys.stderr):  # torchvision talks on stdout, which belongs to results
                return self._class(**arguments, **_FIXED.get(self.name, {}), **part)
        except Exception as error:  # every dataset fails in its own way: RuntimeError, OSError, TypeError, ...
            raise _cannot_open(self.name, self.root, self._download, error) from error

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for part in self._parts:
            starts.append(starts[-1] + len(part))
        return starts

    def _item(self, index: int) -> tuple[Any, Any]:
        part = next(k for k, end in enumerate(self._starts[1:]) if index < end)
        try:
            item = self._parts[part][index - self._starts[part]]
        except (OSError, ValueError, SyntaxError) as error:
            raise BrokenImage(self.name_of(index), str(error)) from None
        picture, target = item if isinstance(item, tuple) and len(item) == 2 else (None, None)
        if not isinstance(picture, Image.Image):
            raise DataError(f"torchvision.datasets.{self.name} gives no pairs of image and label")
        return picture.transpose(Image.Transpose.TRANSPOSE) if self.name in _LYING else picture, target

    @cached_property
    def channels(self) -> int:
        if self._alpha:
            return self._alpha
        return 1 if self._item(0)[0].mode in GREY_MODES else 3

    @cached_property
    def label_names(self) -> list[str]:
        first = self._parts[0]
        names = getattr(first, "classes", None)
        if isinstance(names, (list, tuple)) and names:
            return [name if isinstance(name, str) else " / ".join(map(str, name)) for name in names]
        for attribute in ("targets", "labels", "_labels"):
            values = getattr(first, attribute, None)
            if values is not None and len(values) and all(_is_label(v) for v in values):
                return [str(k) for k in range(max(int(v) for v in values) + 1)]
        return [str(k) for k in range(getattr(first, "num_classes", 0))]

    def __len__(self) -> int:
        return self._starts[-1]

    def name_of(self, index: int) -> str:
        return f"{self.name} {index}"

    def read(self, index: int, size: Resolution) -> tuple[UInt8Array, int]:
        picture, target = self._item(index)
        known = _is_label(target) and 0 <= int(target) < len(self.label_names)
        return fit(picture, size, self.channels), int(target) if known else NO_LABEL

    def fingerprint(self) -> dict[str, Any]:
        listing = self._listing()
        if self._download and not listing and "root" in self._accepted:
            self.root.mkdir(parents=True, exist_ok=True)
            with only_one(self.root / ".download.lock"):  # fetch first, or the listing would change under the key
                _ = self._parts
            listing = self._listing()
        part = self._split if self.own_split else "all"
        return {"dataset": self.name, "torchvision": version("torchvision"), "part": part, "files": listing}

    def _listing(self) -> list[list[Any]]:
        """Two levels, folders included: enough to notice that something was added or replaced."""
        if "root" not in self._accepted:
            return []
        found = sorted(p for depth in ("*", "*/*") for p in self.root.glob(depth) if not p.name.startswith("."))
        return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found]


def dataset_class(name: str) -> type[Any]:
    """`torchvision.datasets.<name>`. Raises `DataError` with the nearest name."""
    from torchvision import datasets

    cls = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not (inspect.isclass(cls) and issubclass(cls, datasets.VisionDataset)):
        by_lower = {known.lower(): known for known in datasets.__all__}
        near = did_you_mean(name.lower(), by_lower)
        hint = f'did you mean "torchvision:{by_lower[near.split(chr(34))[1]]}"?' if near else None
        raise DataError(f'torchvision {version("torchvision")} has no dataset "{name}"', hint=hint)
    return cls


def _parameters(cls: type[Any]) -> set[str]:
    """Names the constructor takes, those of its base class too where it passes keywords on."""
    names: set[str] = set()
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names |= {p.name for p in parameters}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return names


def _is_label(value: Any) -> bool:
    if isinstance(value, (bool, str, bytes)):
        return False
    return isinstance(value, (int, np.integer)) or (getattr(value, "ndim", None) == 0 and not value.is_floating_point())


def _cannot_open(name: str, root: Path, download: bool, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if download:
        hint = "check the network, or pass `path` of a directory that holds the dataset"
        return DataError(f"torchvision:{name} can't be downloaded to {root}: {reason}", hint=hint)
    hint = "pass `path` of the directory that holds it, or set `download: true` where there is a network"
    return DataError(f"torchvision:{name} can't be opened in {root}: {reason}", hint=hint)
