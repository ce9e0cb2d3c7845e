"""Moving pictures as files: mp4 where an encoder is on the machine, else GIF, which needs nothing but Pillow."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.images import beside
from tlgan.errors import BackendError, SpecError
from tlgan.grid import UInt8, over_checks

SMALLEST = 64  # px: smaller pictures are enlarged to at least so many
FORMATS = (".mp4", ".gif")


def encoder() -> str | None:
    """The path of an ffmpeg: on PATH, or the one that the package imageio-ffmpeg brings along."""
    if found := shutil.which("ffmpeg"):
        return found
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return None
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def write_film(batches: Iterable[Any], dest: Path, fps: int) -> int:
    """Writes uint8 `[n, C, H, W]` batches as `dest`, .mp4 or .gif, that plays for ever. Returns the number of frames.

    The file appears whole or not at all. Raises `SpecError` for mp4 without an encoder, `BackendError` when writing fails.
    """
    if dest.suffix.lower() not in FORMATS:
        raise SpecError(f"{dest}: a film is written as .mp4 or .gif")
    program = encoder()
    if dest.suffix.lower() == ".mp4" and program is None:
        raise SpecError("no ffmpeg is on this machine to write mp4", hint="write .gif, or pip install imageio-ffmpeg")
    frames = [frame for batch in batches for frame in _frames(batch.numpy())]
    with beside(dest) as file:
        if program and dest.suffix.lower() == ".mp4":
            _encode(program, frames, file, fps)
        else:
            _gif(frames, file, fps)
    return len(frames)


def _frames(x_nchw: UInt8) -> Iterable[UInt8]:
    """uint8 `[height, width, 3]`, enlarged, with even sides (which mp4 wants)."""
    x_nhwc = over_checks(x_nchw.transpose(0, 2, 3, 1))
    scale = max(1, SMALLEST // max(x_nhwc.shape[1:3]))
    scale += scale % 2 if any(side % 2 for side in x_nhwc.shape[1:3]) else 0
    large = x_nhwc.repeat(scale, 1).repeat(scale, 2)
    return np.broadcast_to(large, (*large.shape[:3], 3))


def _gif(frames: list[UInt8], file: Path, fps: int) -> None:
    first, *rest = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    pause = round(100 / fps) * 10  # GIF counts in hundredths of a second
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=max(pause, 20), loop=0)


def _encode(program: str, frames: list[UInt8], file: Path, fps: int) -> None:
    height, width = frames[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    target = ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4"]
    command = [program, "-y", "-loglevel", "error", *source, *target, str(file)]
    data = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise BackendError(f"ffmpeg could not write the film: {said[-1]}", hint="write .gif")
