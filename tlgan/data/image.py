"""From files of any kind to uint8 images of one size: orientation, modes, 16 bits, alpha, crop, antialiased resize.

In images without alpha (1 or 3 channels), transparent pixels are shown on white, as browsers and file managers show them.
In images with alpha (2 or 4), wholly transparent pixels are black, whatever colour the file hides there.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tlgan.data.source import BrokenImage, TooSmall, UInt8Array
from tlgan.shapes import Resolution, sides

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
ALPHA = (2, 4)  # numbers of channels of which the last is alpha
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
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError)


def decode(file: Path | bytes, name: str, size: Resolution, channels: int, *, enlarge: bool = False) -> UInt8Array:
    """The first frame, upright, cropped around its centre and resized: uint8 `[channels, height, width]`.

    `file` is a path or an encoded image's bytes. Raises `BrokenImage` when it can't be decoded, and `TooSmall` when
    a side has fewer pixels than asked for (unless `enlarge`).
    """
    height, width = sides(size)
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            across, down = _upright_size(image)
            if not enlarge and (across < width or down < height):
                raise TooSmall(name, across, down)
            shrink = 2 * max(width / across, height / down)
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


def fit(image: Image.Image, size: Resolution, channels: int) -> UInt8Array:
    """The largest central part of a picture of any mode that has the shape of `size`, at that size, Lanczos-filtered.

    uint8 `[channels, height, width]`; with alpha, colours are weighted by it.
    """
    height, width = sides(size)
    image = (with_alpha if channels in ALPHA else flatten)(image).convert(MODES[channels])
    scale = min(image.width / width, image.height / height)
    across, down = min(round(width * scale), image.width), min(round(height * scale), image.height)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    box = (left, top, left + across, top + down)
    if (across, down) == (width, height):
        part = image.crop(box)
    else:
        part = image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    pixels = np.asarray(part, dtype=np.uint8)
    if channels in ALPHA:
        pixels = pixels * (pixels[..., -1:] > 0)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def with_alpha(image: Image.Image) -> Image.Image:
    """The same picture in mode LA or RGBA: 8 bits, no palette; opaque where the file says nothing."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    flat = flatten(image)
    return flat.convert("LA" if flat.mode == "L" else "RGBA")


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
    """Grey from RGB by ITU-R 601 luma (as Pillow computes it), RGB from grey by repetition; alpha opaque, or on white."""
    if x_chw.shape[0] == channels:
        return x_chw
    if x_chw.shape[0] in ALPHA:
        colour, alpha = x_chw[:-1], x_chw[-1:]
        if channels in ALPHA:
            return np.concatenate([to_channels(colour, channels - 1), alpha])
        shares = alpha.astype(np.uint32)
        over: UInt8Array = ((colour * shares + 255 * (255 - shares) + 127) // 255).astype(np.uint8)
        return to_channels(over, channels)
    if channels in ALPHA:
        opaque = np.full_like(x_chw[:1], 255)
        return np.concatenate([to_channels(x_chw, channels - 1), opaque])
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


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What stands the picture upright."""
    orientation = None
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing on the pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the picture once it stands upright."""
    return image.size[::-1] if _turn(image) in _SIDEWAYS else image.size


def _reason(error: BaseException, file: Path | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        empty = len(file) == 0 if isinstance(file, bytes) else file.stat().st_size == 0
        return "the file is empty" if empty else "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
