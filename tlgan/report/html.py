"""Building HTML so that nothing from outside can become markup: text is escaped unless it was built here.

    el("p", "a < b", class_="note")   ->   <p class="note">a &lt; b</p>

Also the words for numbers, times and sizes that the page uses.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

VOID = {"img", "input", "br"}
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MAX_ENLARGEMENT = 6  # of a picture; a single small image does not fill the page
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


class Html(str):
    """Markup that is safe to put on the page as it stands."""

    __slots__ = ()


Child = Html | str | Iterable["Child"] | None


def escape(text: str) -> Html:
    """Text as HTML; control, surrogate and text-direction characters become the replacement character."""
    return Html(html.escape(_CONTROL.sub("\ufffd", text), quote=True))


def el(name: str, *children: Child, **attributes: Any) -> Html:
    """An element. `class_` and `data_copy` become `class` and `data-copy`; None and False leave an attribute out."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if name in VOID and not children else f"{opening}{join(children)}</{name}>")


def join(children: Child) -> Html:
    """Children one after another; what is not `Html` is escaped."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return escape(children)
    return Html("".join(join(child) for child in children))


def png_size(png: bytes | None) -> tuple[int, int] | None:
    """Width and height from a PNG's header; None when it is no PNG."""
    if not png or len(png) < 24 or not png.startswith(PNG_MAGIC) or png[12:16] != b"IHDR":
        return None
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def picture(png: bytes | None, alt: str, *, class_: str = "grid") -> Html:
    """The image, with its size so that the page does not jump; a named gap when there is none."""
    size = png_size(png)
    if png is None or size is None:
        return el("span", "no image" if not png else "unreadable image", class_="no-image", role="img", aria_label=alt)
    style = f"max-width:{max(160, MAX_ENLARGEMENT * size[0])}px"
    return el("img", src=data_url(png), alt=alt, width=size[0], height=size[1], class_=class_, style=style)


def zoomable(png: bytes | None, alt: str, caption: str, *, class_: str = "grid") -> Html:
    """A picture that opens large when clicked."""
    if png_size(png) is None:
        return picture(png, alt)
    return el(
        "button", picture(png, alt, class_=class_), type="button", class_="zoom", title="Enlarge", data_caption=caption
    )


def number(value: Any) -> str:
    """Four significant digits: 0.02104, 2e-4, 12,000; `NaN` and `∞` by name, None as a dash, other values as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e7):
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def duration(seconds: float | None) -> str | None:
    """`8.2 s`, `3 min 05 s`, `2 h 14 min`; None for a missing or senseless one."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(iso: str) -> str:
    """`21 November 2025, 03:24 UTC` for an ISO 8601 time; the text itself when it is none. No zone means UTC."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC"


def short(digest: str) -> str:
    """The first 12 characters of a digest, without `sha256:`."""
    return digest.removeprefix("sha256:")[:12]


def count(n: int, noun: str) -> str:
    """`1 image`, `1,797 images`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
