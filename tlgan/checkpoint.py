"""A training's state on disk, for *resume* of the same run only: `state.safetensors` and `state.json`, nothing pickled.

A checkpoint is a directory `ckpt-<nimg>`, written under another name and renamed: one that has its name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlgan.errors import IntegrityError, SpecError

FORMAT = 1
PARTIAL = ".partial-"
State = dict[str, dict[str, Tensor]]
T = TypeVar("T")


def save(root: Path, nimg: int, state: State, meta: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` at `root/ckpt-<nimg>` and delete all but the newest `keep`. Returns the directory."""
    root.mkdir(parents=True, exist_ok=True)
    dest = path_at(root, nimg)
    for leftover in root.glob(f"{PARTIAL}*"):  # of a process that was killed here; a run has one writer
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root))
    # a copy in the plain layout: the layout in memory is the learner's business, the file's is fixed
    flat = {
        f"{owner}|{name}": t.detach().cpu().contiguous() for owner, part in state.items() for name, t in part.items()
    }
    save_file(flat, temporary / "state.safetensors")
    (temporary / "state.json").write_text(json.dumps({"format": FORMAT, "nimg": nimg, **meta}, sort_keys=True))
    if dest.exists():
        _discard(dest)
    os.replace(temporary, dest)
    for old in sorted(root.glob("ckpt-*"))[:-keep]:
        _discard(old)
    return dest


def _discard(path: Path) -> None:
    """Delete a checkpoint; it loses its name first, so that one half deleted is never taken for whole."""
    shutil.rmtree(path.rename(path.with_name(f"{PARTIAL}{path.name}")), ignore_errors=True)


def path_at(root: Path, nimg: int) -> Path:
    return root / f"ckpt-{nimg:012d}"


def nimg_of(path: Path) -> int:
    """Images seen at the checkpoint `path`, by its name."""
    return int(path.name.rpartition("-")[2])


def newest(root: Path) -> Path | None:
    """The newest complete checkpoint below `root`."""
    return max(root.glob("ckpt-*"), default=None)


def load(path: Path, recipe_digest: str | None = None) -> tuple[State, dict[str, Any]]:
    """State and meta of the checkpoint at `path`. Raises `SpecError` when it belongs to another recipe than the one named."""
    meta = _read(path, lambda: json.loads((path / "state.json").read_text()))
    if meta["format"] != FORMAT:
        raise SpecError(f"{path} has checkpoint format {meta['format']}; this tlgan reads {FORMAT}")
    if recipe_digest is not None and meta["recipe"] != recipe_digest:
        raise SpecError(
            f"{path} belongs to recipe {meta['recipe'][:12]}, the run's is {recipe_digest[:12]}",
            hint="resume continues the same recipe; start a new run for another one",
        )
    state: State = {}
    for key, tensor in _read(path, lambda: load_file(path / "state.safetensors")).items():
        owner, _, name = key.partition("|")
        state.setdefault(owner, {})[name] = tensor
    return state, meta


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError, SafetensorError) as error:
        raise IntegrityError(
            f"checkpoint {path} can't be read: {error}", hint="delete that directory to continue from the one before it"
        ) from error
