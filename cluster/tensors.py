"""How far apart two safetensors files are, tensor by tensor. Nothing else is parsed, and one tensor at a time is in memory.

relative L2   |b - a| / |a|, Euclidean norms in float64
max abs       the largest |b - a| of one element
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tlgan.errors import IntegrityError

Row = dict[str, Any]
_NUMPY = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def compare_blocks(path_a: Path, path_b: Path) -> Row:
    """`relative_l2` and `max_abs` over the floating-point tensors that both have in one shape, and a row a tensor.

    Either is None where it says nothing: no such tensor, nothing but zeros in `a`, or values that are not finite.
    `tensors` have `name`, `change` (unchanged, changed, reshaped, only_a, only_b), shapes, types and the same figures.
    Raises `IntegrityError` for a file that is no safetensors file.
    """
    try:
        with safe_open(path_a, framework="numpy") as a, safe_open(path_b, framework="numpy") as b:
            names_a, names_b = set(a.keys()), set(b.keys())
            rows = []
            squares = (0.0, 0.0, 0.0)
            for name in sorted(names_a | names_b):
                row, added = _compare_tensor(a, b, path_a, path_b, name, name in names_a, name in names_b)
                rows.append(row)
                squares = (squares[0] + added[0], squares[1] + added[1], max(squares[2], added[2]))
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"no safetensors file: {error}") from None
    compared = any("relative_l2" in row and row["floating"] for row in rows)
    broken = any(row.get("not_finite") for row in rows)
    figures: Row = {"relative_l2": None, "max_abs": None}
    if compared and not broken:
        figures = {"relative_l2": _relative(squares[0], squares[1]), "max_abs": squares[2]}
    return figures | {"not_finite": broken, "tensors": rows}


def _compare_tensor(
    a: Any, b: Any, path_a: Path, path_b: Path, name: str, in_a: bool, in_b: bool
) -> tuple[Row, tuple[float, float, float]]:
    """The row, and what it adds to the block: squares of difference and of `a`, largest difference."""
    row: Row = {"name": name}
    for side, there, file in (("a", in_a, a), ("b", in_b, b)):
        about = file.get_slice(name) if there else None
        row[f"shape_{side}"] = list(about.get_shape()) if about else None
        row[f"dtype_{side}"] = about.get_dtype() if about else None
    nothing = (0.0, 0.0, 0.0)
    if not (in_a and in_b):
        return row | {"change": "only_a" if in_a else "only_b"}, nothing
    if row["shape_a"] != row["shape_b"]:
        return row | {"change": "reshaped"}, nothing
    left, right = _values(a, path_a, name, row["dtype_a"]), _values(b, path_b, name, row["dtype_b"])
    floating = all("F" in row[f"dtype_{side}"] for side in "ab")
    lost = not (np.isfinite(left).all() and np.isfinite(right).all())
    same = row["dtype_a"] == row["dtype_b"] and np.array_equal(left, right, equal_nan=True)
    row |= {"change": "unchanged" if same else "changed", "floating": floating, "not_finite": lost}
    if lost:
        return row | {"relative_l2": None, "max_abs": None}, nothing
    difference = np.abs(right - left)
    squares, norm = float(np.vdot(difference, difference)), float(np.vdot(left, left))
    largest = float(difference.max(initial=0.0))
    row |= {"relative_l2": _relative(squares, norm), "max_abs": largest}
    return row, (squares, norm, largest) if floating else nothing


def _relative(squares: float, norm: float) -> float | None:
    if norm == 0:
        return 0.0 if squares == 0 else None
    return math.sqrt(squares / norm)


def _values(file: Any, path: Path, name: str, dtype: str) -> NDArray[np.float64]:
    """Flat, in float64. Types that numpy lacks (bfloat16, float8) are read through torch."""
    if dtype in _NUMPY:
        array: NDArray[Any] = file.get_tensor(name)
        return array.astype(np.float64).ravel()
    import torch

    try:
        with safe_open(path, framework="pt") as through_torch:
            tensor = through_torch.get_tensor(name)
        if not tensor.is_floating_point():
            raise TypeError
        read: NDArray[np.float64] = tensor.to(torch.float64).numpy()
    except (TypeError, AttributeError, RuntimeError):
        raise IntegrityError(f"tensor {name} has the type {dtype}, which can't be compared") from None
    return read.ravel()
