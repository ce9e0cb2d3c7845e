"""Sizes and times as a person reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tlgan.errors import SpecError

_UNITS = ("kB", "MB", "GB", "TB")
_SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
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


def parse_span(text: str, option: str) -> timedelta:
    """A length of time such as `30d`, `12h`, `1h30min` or `0`. Raises `SpecError` that names the option."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[shdw])", text)
    if (text != "0" and "".join(number + unit for number, unit in parts) != text) or not text:
        hint = "write 30d, 12h, 45min, 90s, 2w or 0" + ("; m could be minutes or months" if text.endswith("m") else "")
        raise SpecError(f"{option} {text!r} is no length of time", hint=hint)
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise SpecError(f"{option} {text!r} is longer than time itself is counted", hint="write 3650d, say") from None


def span_text(span: timedelta) -> str:
    """`7 d`, `12 h`, `1 h 30 min`, `0 s`."""
    left, parts = int(span.total_seconds()), []
    for name, length in (*_SPANS, ("s", 1)):
        if count := left // length:
            parts.append(f"{count} {name}")
            left -= count * length
    return " ".join(parts[:2]) or "0 s"


def time_text(moment: str | datetime) -> str:
    """`2026-01-31 12:00:00`, in UTC. `moment`: with its time zone, or as manifests and records have it."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
