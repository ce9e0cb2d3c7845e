"""A training's state on disk, for *resume* of the same run only: `state.safetensors` and `state.json`, nothing pickled.

A checkpoint is a directory `ckpt-<nimg>`, written under another name and renamed: one that has its name is complete.
`state.json` has the other file's sha256, so that one that went bad is noticed and the one before it taken.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlgan.canonical import differences
from tlgan.errors import IntegrityError, SpecError
from tlgan.recipe import ClassifierRecipe, Recipe

log = logging.getLogger("tlgan.checkpoint")
FORMAT = 1
PARTIAL = ".partial-"
State = dict[str, dict[str, Tensor]]
T = TypeVar("T")


def save(root: Path, nimg: int, state: State, meta: dict[str, Any]) -> Path:
    """Write `state` at `root/ckpt-<nimg>`. Returns the directory. Raises `OSError`."""
    root.mkdir(parents=True, exist_ok=True)
    dest = path_at(root, nimg)
    for leftover in root.glob(f"{PARTIAL}*"):  # of a process that was killed here; a run has one writer
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root))
    # a copy in the plain layout: the layout in memory is the learner's business, the file's is fixed
    flat = {
        f"{owner}|{name}": t.detach().cpu().contiguous() for owner, part in state.items() for name, t in part.items()
    }
    try:
        save_file(flat, temporary / "state.safetensors")
    except SafetensorError as error:  # what the system said is in its words only
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    about = {"format": FORMAT, "nimg": nimg, "sha256": _sha256(temporary / "state.safetensors"), **meta}
    (temporary / "state.json").write_text(json.dumps(about, sort_keys=True))
    if dest.exists():
        _discard(dest)
    os.replace(temporary, dest)
    return dest


def trim(root: Path, keep: int, spare: Path | None = None) -> None:
    """Delete all but the newest `keep` checkpoints, and `spare`."""
    for old in sorted(root.glob("ckpt-*"))[:-keep]:
        if old != spare:
            _discard(old)


def drop_damaged(root: Path) -> None:
    """Check the newest checkpoints until one is sound; those that are not are named in the log and deleted."""
    while (found := newest(root)) is not None:
        try:
            check(found)
            return
        except IntegrityError as error:
            log.warning("%s; going on from the one before it", error.message)
            with contextlib.suppress(FileNotFoundError):  # another rank on this node was quicker
                _discard(found)


def check(path: Path) -> None:
    """Raises `IntegrityError` when the checkpoint at `path` is not as it was written."""
    meta = _read(path, lambda: json.loads((path / "state.json").read_text()))
    wanted = meta.get("sha256") if isinstance(meta, dict) else ""
    if wanted is None:  # written by an older version
        _read(path, lambda: load_file(path / "state.safetensors"))
    elif _read(path, lambda: _sha256(path / "state.safetensors")) != wanted:
        raise IntegrityError(f"checkpoint {path} is damaged: its state is not what was written")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def load(path: Path, recipe: Recipe | ClassifierRecipe | None = None) -> tuple[State, dict[str, Any]]:
    """State and meta of the checkpoint at `path`. Raises `SpecError`, with what differs, when it belongs to another recipe
    than the one given."""
    meta = _read(path, lambda: json.loads((path / "state.json").read_text()))
    if meta["format"] != FORMAT:
        raise SpecError(f"{path} has checkpoint format {meta['format']}; this tlgan reads {FORMAT}")
    if recipe is not None and meta["recipe"] != recipe.digest:
        raise SpecError(
            f"{path} belongs to recipe {meta['recipe'][:12]}, the run's is {recipe.digest[:12]}"
            + _unlike(meta.get("fields"), recipe),
            hint="resume continues the same recipe; start a new run for another one",
        )
    state: State = {}
    for key, tensor in _read(path, lambda: load_file(path / "state.safetensors")).items():
        owner, _, name = key.partition("|")
        state.setdefault(owner, {})[name] = tensor
    return state, meta


def _unlike(before: dict[str, Any] | None, recipe: Recipe | ClassifierRecipe) -> str:
    """What the checkpoint's recipe had otherwise; nothing where an older version did not write it down."""
    found = differences(before, recipe.model_dump(mode="json")) if before else []
    return f": {'; '.join(found)}" if found else ""


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError, SafetensorError) as error:
        raise IntegrityError(
            f"checkpoint {path} can't be read: {error}", hint="delete that directory to continue from the one before it"
        ) from error
