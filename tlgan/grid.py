"""Image grids: many small images on one sheet, and the PNG bytes of it.

Layouts: images are uint8 `[N, C, H, W]` (numpy or torch), C = 1 (grey), 3 (RGB), or 2 and 4, the same
with alpha, which sheets show over a chequerboard. Sheets are uint8 `[height, width, 3]`.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tlgan.errors import DataError

UInt8 = npt.NDArray[np.uint8]
CHECK, CHECK_GREYS = 4, (204, 255)  # px of a field of the chequerboard, and its two greys
DEFLATE = 4  # of 9: a sixth of the time that the smallest files take, for 4 % more bytes; training waits for its grids
GAP = 128  # grey of the lines between images: told apart from dark and bright images, on dark and bright pages


def to_grid(
    images: Any, rows: int | None = None, cols: int | None = None, *, scale: int = 1, pad: int = 2, gap: int = GAP
) -> UInt8:
    """Lays images out row by row.

    Args:
        images: uint8 `[N, C, H, W]`, numpy or torch on any device, C = 1 to 4.
        rows, cols: of the grid; a missing one follows from the other, both missing give a near-square grid.
            Cells without an image are filled with `gap`.
        scale: whole-number enlargement of each image, nearest neighbour.
        pad: pixels between neighbouring images, not enlarged; there is no outer border.
        gap: grey value of the padding.

    Returns:
        uint8 `[rows*H*scale + (rows-1)*pad, cols*W*scale + (cols-1)*pad, 3]`.

    Raises:
        DataError: wrong shape or type, no images, or more images than cells.
    """
    x_nhwc = _as_nhwc(images)
    rows, cols = _layout(len(x_nhwc), rows, cols)
    if scale < 1 or pad < 0 or not 0 <= gap <= 255:
        raise DataError(f"expected scale >= 1, pad >= 0 and gap in 0..255; received {scale}, {pad}, {gap}")
    x_nhwc = x_nhwc.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = x_nhwc.shape[1:3]
    sheet = np.full((rows * (height + pad) - pad, cols * (width + pad) - pad, 3), gap, np.uint8)
    for i, image in enumerate(x_nhwc):
        top, left = (i // cols) * (height + pad), (i % cols) * (width + pad)
        sheet[top : top + height, left : left + width] = image
    return sheet


def strip(images: Any, *, scale: int = 1, pad: int = 0) -> UInt8:
    """One row of images, left to right, without lines between them: an interpolation. Arguments as `to_grid`."""
    return to_grid(images, rows=1, scale=scale, pad=pad)


def png_bytes(sheet: UInt8) -> bytes:
    """A lossless PNG of uint8 `[H, W]`, `[H, W, 1]` or `[H, W, 3]`; equal pixels give equal bytes.

    Sheets without colour are stored as grey, ones with at most 256 colours with a palette.
    Raises `DataError` for other arrays.
    """
    buffer = io.BytesIO()
    _smallest(sheet).save(buffer, format="PNG", compress_level=DEFLATE)
    return buffer.getvalue()


def save_png(sheet: UInt8, path: str | Path) -> Path:
    """Writes `png_bytes(sheet)` to `path`, making its folder; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(sheet))
    return path


def _as_nhwc(images: Any) -> UInt8:
    """To numpy `[N, H, W, 3 or 1]`, checked, alpha over a chequerboard. Torch is recognised by its methods, not imported."""
    array: npt.NDArray[Any] = images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 2, 3, 4):
        raise DataError(
            f"expected uint8 images [N, C, H, W] with C = 1 to 4; received {array.dtype} {list(array.shape)}",
            hint="generators give floats in [-1, 1]: ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)"
            if array.dtype.kind == "f"
            else None,
        )
    if 0 in array.shape:
        raise DataError(f"expected at least one image; received an empty array {list(array.shape)}")
    return over_checks(array.transpose(0, 2, 3, 1))


def over_checks(x_nhwc: UInt8) -> UInt8:
    """Images with alpha as they show over a chequerboard of two greys; others as they are. uint8 `[N, H, W, C]`."""
    if x_nhwc.shape[3] in (1, 3):
        return x_nhwc
    rows, cols = np.indices(x_nhwc.shape[1:3]) // CHECK
    ground = np.where((rows + cols) % 2, *CHECK_GREYS).astype(np.uint32)[None, :, :, None]
    share = x_nhwc[..., -1:].astype(np.uint32)
    over: UInt8 = ((x_nhwc[..., :-1] * share + ground * (255 - share) + 127) // 255).astype(np.uint8)
    return over


def image_png(x_chw: UInt8) -> bytes:
    """A lossless PNG of one image uint8 `[C, H, W]`, with its alpha where it has one."""
    if x_chw.shape[0] in (1, 3):
        return png_bytes(x_chw.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(x_chw.transpose(1, 2, 0))).save(buffer, format="PNG", compress_level=DEFLATE)
    return buffer.getvalue()


def _layout(count: int, rows: int | None, cols: int | None) -> tuple[int, int]:
    if (rows is not None and rows < 1) or (cols is not None and cols < 1):
        raise DataError(f"expected at least one row and one column; received rows={rows}, cols={cols}")
    if rows is None and cols is None:
        cols = math.ceil(math.sqrt(count))
    if cols is None:
        cols = math.ceil(count / rows)  # type: ignore[operator]
    if rows is None:
        rows = math.ceil(count / cols)
    if count > rows * cols:
        raise DataError(
            f"{count} images do not fit a grid of {rows} rows x {cols} columns",
            hint=f"raise rows or cols, or pass the first {rows * cols} images",
        )
    return rows, cols


def _smallest(sheet: UInt8) -> Image.Image:
    """The Pillow image of the cheapest mode that keeps every pixel."""
    sheet = np.asarray(sheet)
    if sheet.dtype != np.uint8 or sheet.ndim not in (2, 3) or (sheet.ndim == 3 and sheet.shape[2] not in (1, 3)):
        raise DataError(f"expected a uint8 sheet [H, W] or [H, W, 1 or 3]; received {sheet.dtype} {list(sheet.shape)}")
    if 0 in sheet.shape:
        raise DataError(f"expected a sheet with pixels; received {list(sheet.shape)}")
    if sheet.ndim == 2 or sheet.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(sheet.reshape(sheet.shape[:2])))
    if (sheet == sheet[:, :, :1]).all():
        return Image.fromarray(np.ascontiguousarray(sheet[:, :, 0]))
    packed = sheet.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    if len(colours) > 256:
        return Image.fromarray(np.ascontiguousarray(sheet))
    image = Image.fromarray(index.reshape(sheet.shape[:2]).astype(np.uint8)).convert("P")
    image.putpalette(np.stack([colours >> 16, colours >> 8, colours], 1).astype(np.uint8).tobytes())
    return image
