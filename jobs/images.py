"""Generated images as files: one grid, a folder of PNGs, an npz array, a strip between latents."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.store.base import sha256_of
from tlgan.errors import BackendError, Conflict


def write_images(
    g: Any, dest: Path, form: str, *, n: int, seed: int, truncation: float, classes: Sequence[str] = ()
) -> None:
    """`form`: `grid`, `png` or `npz`. `classes`: of a conditional generator, those to draw in turn.

    The destination appears whole or not at all. Raises `Conflict`, `BackendError`."""
    from tlgan.grid import image_png, save_png, to_grid
    from tlgan.sampling import generate, stream

    if form == "png":
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise Conflict(f"{dest} exists and is no empty folder", hint="choose another folder")
        with beside(dest) as folder:
            folder.mkdir()
            number = 0
            for batch in stream(g, n, seed, truncation, classes):
                for image in batch:
                    (folder / f"{number:06d}.png").write_bytes(image_png(image.numpy()))
                    number += 1
        return
    with beside(dest) as file:
        images = generate(g, n, seed, truncation, classes)
        if form == "npz":
            import numpy as np

            with file.open("wb") as stream_out:
                np.savez_compressed(stream_out, images=images.numpy())
        else:
            save_png(to_grid(images, scale=max(1, 64 // images.shape[-1])), file)


def write_strip(
    g: Any, dest: Path, *, steps: int, ends: int, seed: int, truncation: float, classes: Sequence[str] = ()
) -> None:
    """A row of images from one latent to the next."""
    from tlgan.grid import save_png, strip
    from tlgan.sampling import interpolate

    with beside(dest) as file:
        images = interpolate(g, steps, seed, truncation, ends, classes)
        save_png(strip(images, scale=max(1, 64 // images.shape[-1])), file)


def digest_of_files(path: Path) -> str:
    """sha256 over a file, or over the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        total.update(f"{file.name if path.is_dir() else ''}\0{sha256_of(file) if file.is_file() else ''}\n".encode())
    return total.hexdigest()


@contextlib.contextmanager
def beside(dest: Path) -> Iterator[Path]:
    """A name to write to, renamed to `dest` at the end."""
    temporary = dest.absolute().with_name(f".{dest.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if dest.is_dir():
            dest.rmdir()
        os.replace(temporary, dest)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BackendError(f"can't write {dest}: {reason}", hint="check the path and the free space") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
