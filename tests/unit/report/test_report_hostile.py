"""No text from outside becomes markup: with hostile words everywhere the page has the very same skeleton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from tlgan.report import Document, ReportData, render
from tlgan.report.html import Html, el, escape

WORDS = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "<!--<script>",
    "]]></style></svg><b>",
    "${title} $title %s {0}",
    "&lt;i&gt; &amp;#60;",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066\x00\x1b[31m\u2028",
    "\udcff lone surrogate",
)
KEPT = {"state", "mode", "better", "scale", "kind", "created"}  # words of a fixed list, and the time


def _spoilt(value: Any, word: str) -> Any:
    if isinstance(value, str):
        return word + value
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _spoilt(getattr(value, f.name), word) for f in fields(value) if f.name not in KEPT}
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(_spoilt(item, word) for item in value)
    if isinstance(value, dict):
        return {_spoilt(key, word): _spoilt(item, word) for key, item in value.items()}
    return value


@pytest.mark.parametrize("word", WORDS)
def test_hostile_words_everywhere_change_no_tag(full: ReportData, read: Callable[[str], Any], word: str) -> None:
    full = replace(full, recipes=())  # the key marks of YAML depend on the text, see below
    harmless, hostile = read(render(_spoilt(full, "word"))), read(render(_spoilt(full, word)))
    assert hostile.skeleton == harmless.skeleton
    assert hostile.scripts[1] == harmless.scripts[1]
    assert hostile.payload["title"] == (word + full.title).encode("utf-8", "replace").decode()
    assert len(hostile.scripts) == 2


@pytest.mark.parametrize("word", WORDS)
def test_a_hostile_recipe_stays_text(read: Callable[[str], Any], word: str) -> None:
    text = f"# {word}\nkey: {word}\n{word}: 1\n- a.b: {word}"
    page = read(render(ReportData("t", recipes=(Document(word, text),))))
    assert {tag for tag, _ in page.tags} <= {
        tag for tag, _ in read(render(ReportData("t", recipes=(Document("d", "a: 1"),)))).tags
    }
    copied = next(a["data-copy"] for a in page.all("button", "copy"))
    assert copied == str(escape(text)).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace(
        "&#x27;", "'"
    ).replace("&amp;", "&")


@pytest.mark.parametrize("word", WORDS)
def test_the_page_can_always_be_written(full: ReportData, word: str) -> None:
    html = render(_spoilt(full, word))
    html.encode("utf-8")
    assert "\x00" not in html
    assert "\u202e" not in html


def test_the_builder_escapes_unless_told_otherwise() -> None:
    assert el("p", "<b>", Html("<i></i>"), ["&"], None, title='"<', hidden=True, lang=None) == (
        '<p title="&quot;&lt;" hidden>&lt;b&gt;<i></i>&amp;</p>'
    )
    assert isinstance(el("p"), Html)
    assert not isinstance(Html("a") + "b", Html), "joined with plain text it is plain text again"
