"""From files of any kind to square uint8 images: orientation, modes, 16 bits, transparency, crop, antialiased resize.

Transparent pixels are shown on white, as browsers and file managers show them.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tlgan.data.source import BrokenImage, TooSmall, UInt8Array

WHITE = (255, 255, 255, 255)
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
GREY_MODES = frozenset({"1", "L", "LA", "La", "I"}) | _SIXTEEN_BIT
# EXIF orientation -> the turn that stands the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError)


def decode(file: Path | bytes, name: str, size: int, channels: int, *, enlarge: bool = False) -> UInt8Array:
    """The first frame, upright, cropped to its central square and resized: uint8 `[channels, size, size]`.

    `file` is a path or an encoded image's bytes. Raises `BrokenImage` when it can't be decoded, and `TooSmall` when
    the shorter side has less than `size` pixels (unless `enlarge`).
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if not enlarge and min(image.size) < size:
                raise TooSmall(name, *image.size)
            shrink = 2 * size / min(image.size)
            image.draft(None, (math.ceil(image.width * shrink), math.ceil(image.height * shrink)))
            image.load()
            return fit(_upright(image), size, channels)
    except _UNREADABLE as error:
        raise BrokenImage(name, _reason(error, file)) from None


def is_grey(file: Path | bytes) -> bool | None:
    """Whether the header announces grey pixels; None when there is no readable header."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return image.mode in GREY_MODES
    except _UNREADABLE:
        return None


def fit(image: Image.Image, size: int, channels: int) -> UInt8Array:
    """The central square of a picture of any mode at `size` px: uint8 `[channels, size, size]`, Lanczos-filtered."""
    image = flatten(image).convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        square = image.crop(box)
    else:
        square = image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    pixels = np.asarray(square, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def flatten(image: Image.Image) -> Image.Image:
    """The same picture in mode L or RGB: 8 bits, no palette, transparency composited on white."""
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _eight_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")
        return opaque.convert("L") if image.mode in GREY_MODES else opaque
    return image.convert("L" if image.mode in GREY_MODES else "RGB")


def to_channels(x_chw: UInt8Array, channels: int) -> UInt8Array:
    """Grey from RGB by ITU-R 601 luma (as Pillow computes it), RGB from grey by repetition."""
    if x_chw.shape[0] == channels:
        return x_chw
    if channels == 3:
        return np.repeat(x_chw, 3, axis=0)
    red, green, blue = x_chw.astype(np.uint32)
    luma: UInt8Array = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)
    return luma[None]


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise ValueError("32-bit pixels have no defined range; save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    orientation = None
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing on the pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _reason(error: BaseException, file: Path | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        empty = len(file) == 0 if isinstance(file, bytes) else file.stat().st_size == 0
        return "the file is empty" if empty else "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
