"""Grids keep pixels where they belong, and PNGs keep every pixel."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlgan import grid
from tlgan.errors import DataError


def _images(n: int, channels: int = 1, side: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def _decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_cells_hold_the_images_row_by_row() -> None:
    x = _images(5, channels=3)
    sheet = grid.to_grid(x, rows=2, cols=3, pad=2)
    assert sheet.shape == (2 * 4 + 2, 3 * 4 + 2 * 2, 3)
    assert (sheet[:4, 6:10] == x[1].transpose(1, 2, 0)).all()
    assert (sheet[6:10, 6:10] == x[4].transpose(1, 2, 0)).all()
    assert (sheet[6:10, 12:16] == grid.GAP).all(), "the sixth cell is empty"
    assert (sheet[4:6] == grid.GAP).all()
    assert (sheet[:, 4:6] == grid.GAP).all()


def test_torch_and_numpy_agree_and_grey_fills_three_channels() -> None:
    x = _images(4)
    sheet = grid.to_grid(torch.from_numpy(x), 2, 2)
    assert (sheet == grid.to_grid(x, 2, 2)).all()
    assert (sheet[..., 0] == sheet[..., 2]).all()


def test_scale_repeats_pixels_but_not_padding() -> None:
    x = _images(2)
    sheet = grid.to_grid(x, 1, 2, scale=3, pad=1)
    assert sheet.shape == (12, 25, 3)
    assert (sheet[:3, :3] == x[0, 0, 0, 0]).all()
    assert (sheet[9:, 22:] == x[1, 0, 3, 3]).all()


@pytest.mark.parametrize(
    ("count", "rows", "cols", "cells"),
    [(1, None, None, (1, 1)), (48, 6, None, (6, 8)), (48, None, 8, (6, 8)), (7, None, None, (3, 3))],
)
def test_missing_rows_or_columns_follow(count: int, rows: int | None, cols: int | None, cells: tuple[int, int]) -> None:
    sheet = grid.to_grid(_images(count, side=1), rows, cols, pad=0)
    assert sheet.shape[:2] == cells


def test_strip_is_one_row_without_lines() -> None:
    x = _images(6)
    sheet = grid.strip(x, scale=2)
    assert sheet.shape == (8, 48, 3)
    assert (sheet[::2, ::2, 0] == np.concatenate(list(x[:, 0]), axis=1)).all()


@pytest.mark.parametrize(
    ("sheet", "mode"),
    [
        (np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8), "L"),
        (grid.to_grid(_images(4, channels=1, side=8)), "L"),
        (np.random.default_rng(0).integers(0, 2, (40, 30, 3), dtype=np.uint8) * 200, "P"),
        (np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8), "RGB"),
    ],
)
def test_png_is_lossless_small_and_repeatable(sheet: np.ndarray, mode: str) -> None:
    png = grid.png_bytes(sheet)
    rgb = sheet if sheet.ndim == 3 else np.repeat(sheet[..., None], 3, axis=2)
    assert (_decode(png) == rgb).all()
    assert Image.open(io.BytesIO(png)).mode == mode
    assert grid.png_bytes(sheet.copy()) == png


def test_a_grey_grid_costs_a_third_of_a_coloured_one() -> None:
    grey = grid.to_grid(_images(16, channels=1, side=32))
    rgb = grid.to_grid(_images(16, channels=3, side=32))
    assert len(grid.png_bytes(grey)) < 0.4 * len(grid.png_bytes(rgb))


def test_save_makes_the_folder(tmp_path: Path) -> None:
    sheet = grid.to_grid(_images(2))
    path = grid.save_png(sheet, tmp_path / "a" / "b.png")
    assert path.read_bytes() == grid.png_bytes(sheet)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 4, 4), np.float32), r"expected uint8 images .* received float32 \[2, 1, 4, 4\]"),
        (np.zeros((2, 4, 4), np.uint8), r"received uint8 \[2, 4, 4\]"),
        (np.zeros((2, 5, 4, 4), np.uint8), "C = 1 to 4"),
        (np.zeros((0, 1, 4, 4), np.uint8), "at least one image"),
        (_images(5), "5 images do not fit a grid of 2 rows x 2 columns"),
    ],
)
def test_bad_images_are_named(images: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grid.to_grid(images, 2, 2)


def test_bad_numbers_are_named() -> None:
    with pytest.raises(DataError, match="scale >= 1"):
        grid.to_grid(_images(1), scale=0)
    with pytest.raises(DataError, match="rows=0"):
        grid.to_grid(_images(1), rows=0)
    with pytest.raises(DataError, match="uint8 sheet"):
        grid.png_bytes(np.zeros((4, 4, 3), np.float64))  # type: ignore[arg-type]
