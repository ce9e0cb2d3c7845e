"""Sizes and times as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("kB", "MB", "GB", "TB")
_SPANS = (("d", 86_400), ("h", 3_600), ("min", 60))


def size_text(count: int) -> str:
    """Bytes in decimal units: `812 B`, `1.2 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError


def age_text(created: str, now: datetime | None = None) -> str:
    """How long ago a time of a manifest or a record was: `just now`, `5 min ago`, `3 d ago`."""
    then = datetime.fromisoformat(created.replace("Z", "+00:00"))
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    return next((f"{int(seconds // length)} {name} ago" for name, length in _SPANS if seconds >= length), "just now")
