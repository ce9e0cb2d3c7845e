"""Sizes of images as specs write them: `64` for a square, `[64, 48]` for height and width. Needs no torch."""

from __future__ import annotations

from typing import Any

SMALLEST, LARGEST = 8, 1024  # px
Resolution = int | list[int]


def sides(resolution: Any) -> tuple[int, int]:
    """(height, width) in pixels."""
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution
    return int(height), int(width)


def longer(resolution: Any) -> int:
    """The longer side: networks count their levels by it."""
    return max(sides(resolution))


def resolution_of(height: int, width: int) -> Resolution:
    """The shortest way to write a size."""
    return height if height == width else [height, width]


def base_of(resolution: Any) -> tuple[int, int]:
    """Height and width of a network's smallest map: 4 px on the longer side."""
    height, width = sides(resolution)
    return 4 * height // max(height, width), 4 * width // max(height, width)


def text(resolution: Any) -> str:
    """`64x64`, height first."""
    return "x".join(map(str, sides(resolution)))


def check(value: Any) -> Resolution:
    """`value` itself, and one number for a square. Raises `ValueError` for anything but a size."""
    numbers = value if isinstance(value, list) and len(value) == 2 else [value]
    if all(type(number) is int and SMALLEST <= number <= LARGEST for number in numbers):
        return resolution_of(*sides(value))
    received = repr(value) if isinstance(value, str) else value
    raise ValueError(
        f"expected a whole number of pixels from {SMALLEST} to {LARGEST}, or [height, width]; received {received}"
    )


def misfit(resolution: Any, allowed: tuple[int, ...]) -> str | None:
    """Why networks built for the longer sides `allowed` can't draw this size; None when they can.

    Every level halves both sides, down to 4 px on the longer one: the shorter must be 1, 2 or 3 quarters of it.
    """
    height, width = sides(resolution)
    if max(height, width) not in allowed:
        sizes = ", ".join(map(str, allowed))
        longest = "" if height == width else " on the longer side"
        return f"is built for resolutions {sizes}{longest}; received {resolution}"
    if 4 * min(height, width) % max(height, width):
        quarters = ", ".join(str(max(height, width) * k // 4) for k in (1, 2, 3))
        return f"is built for a shorter side of {quarters} px with {max(height, width)}; received {resolution}"
    return None
