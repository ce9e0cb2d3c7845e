"""The page holds everything, stands on its own, is well formed and the same for the same report."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from tlgan.report import Curve, Frame, LineageNode, Picture, ReportData, RunSection, SweepSection, TrialRow, render
from tlgan.report.lineage import lineage_svg
from tlgan.report.prepare import prepare

Read = Callable[[str], Any]
PARTS = ("lineage", "training", "sweep", "evaluation", "data", "repeat", "recipes", "environment")


def test_every_part_is_a_section_reached_from_the_navigation(full: ReportData, read: Read) -> None:
    page = read(render(full))
    assert [a["id"] for a in page.all("section")] == list(PARTS)
    assert [a["href"] for a in page.all("a")] == [f"#{part}" for part in PARTS]


def test_what_a_person_looks_for_is_in_the_text(full: ReportData, read: Read) -> None:
    text = read(render(full)).text
    for words in (
        *("glyphs to digits", "21 November 2025, 03:24 UTC", "The best trial reaches a KID of 0.02.", "0.0211"),
        *("digits32:best", "555555555555", "64 of 64 kimg", "2 min 10 s", "492 images/s", "2 workers"),
        *("WorkerDied: rank 1 was killed", "loss is NaN", "published", "Stopped early", "64,000", "< 0.05"),
        *("passed", "missed", "1,797 images, 32 × 32 px, grey", "1 file skipped", "truncated", "kimg: 64"),
        *("tlgan run spec.yaml -s a.b=1", "2.14.1", "9 trials, 8 with a value"),
    ):
        assert words in text, words


def test_nothing_is_fetched_and_only_the_own_script_may_run(full: ReportData, read: Read) -> None:
    html = render(full)
    page = read(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "poster", "srcset", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:image/png;base64,", "data:,", "#")), (tag, name, value[:60])
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "@import" not in html
    assert html.count("url(") == html.count("url(#"), "only parts of the page itself"
    assert {t for t, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "form", "base"})
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_scripts_never_parse_text_as_markup(full: ReportData, read: Read) -> None:
    script = read(render(full)).scripts[1]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch("):
        assert way not in script


def test_accessible_names(full: ReportData, read: Read) -> None:
    page = read(render(full))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["aria-labelledby"] in ids for a in page.all("section"))
    assert all(a.get("alt") for a in page.all("img")[:-1]), "the last one is the empty viewer's"
    assert all(a.get("aria-label") for a in page.all("input"))
    assert "Handwritten digits" in {a["alt"] for a in page.all("img")}
    labels = [a["aria-label"] for a in page.all("div", "plot")]
    assert any(
        "kid: first 0.4 at 0 kimg, last 0.05 at 64 kimg, best 0.05 at 64 kimg, 1 value not finite." in x for x in labels
    )
    for copy in page.all("g", "copy"):
        assert copy["role"] == "button"
        assert copy["tabindex"] == "0"
        assert len(copy["data-copy"]) == 64


def test_the_numbers_come_back_from_the_page(full: ReportData, read: Read) -> None:
    page = read(render(full))
    back = ReportData.from_json(page.payload)
    assert repr(back) == repr(prepare(full).without_pictures())


def test_same_report_same_page(full: ReportData) -> None:
    assert render(full) == render(replace(full))


def test_film_has_a_frame_each_and_starts_with_the_last(full: ReportData, read: Read) -> None:
    page = read(render(full))
    frames = page.all("figure", "frame")
    assert len(frames) == 9
    assert ["on" in a["class"].split() for a in frames] == [False] * 8 + [True]
    assert 2 <= sum("key" in a["class"].split() for a in frames) <= 6, "what is printed"
    slider = next(a for a in page.all("input"))
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "8", "8")


def test_leaderboard_keeps_the_order_and_ranks_only_measured_trials(full: ReportData, read: Read) -> None:
    page = read(render(full))
    rows = [a for a in page.all("tr") if "data-trial" in a]
    assert [a["data-trial"] for a in rows] == [str(i) for i in range(9)]
    assert [a.get("class") for a in rows] == ["best", *[None] * 7, "failed"]


@pytest.mark.parametrize("part", [f.name for f in fields(ReportData) if f.name != "title"])
def test_any_part_may_be_missing(full: ReportData, read: Read, part: str) -> None:
    empty = getattr(ReportData("t"), part)
    assert getattr(full, part) != empty or part == "state"
    read(render(replace(full, **{part: empty})))


def test_a_bare_title_is_a_page(read: Read) -> None:
    page = read(render(ReportData("only a title")))
    assert "only a title" in page.text
    assert not page.all("section")
    assert not page.all("nav")


@pytest.mark.parametrize(
    "report",
    [
        ReportData("no metrics", runs=(RunSection("r"),)),
        ReportData("empty curve", runs=(RunSection("r", losses=(Curve("G", (), ()),)),)),
        ReportData("all NaN", runs=(RunSection("r", metrics=(Curve("kid", (1.0,), (float("nan"),), "min"),)),)),
        ReportData("no trial", sweeps=(SweepSection("s", "kid"),)),
        ReportData(
            "none finished",
            sweeps=(SweepSection("s", "kid", rows=(TrialRow("a", "failed"), TrialRow("b", "running"))),),
        ),
        ReportData("no params", sweeps=(SweepSection("s", "kid", rows=(TrialRow("a", objective=0.1),)),)),
        ReportData("not a date", created="yesterday, about noon"),
        ReportData("no picture", samples=Picture(b""), targets=Picture(b"GIF89a")),
        ReportData("odd numbers", runs=(RunSection("r", kimg=float("nan"), seconds=float("inf"), workers=0),)),
    ],
    ids=lambda report: report.title,
)
def test_poor_reports_still_make_a_page(report: ReportData, read: Read) -> None:
    assert report.title in read(render(report)).text


def test_unreadable_pictures_are_named_not_shown(read: Read) -> None:
    page = read(render(ReportData("t", samples=Picture(b"\x89PNG broken"), targets=Picture(b""))))
    assert "unreadable image" in page.text
    assert "no image" in page.text
    assert len(page.all("img")) == 1


def test_a_single_frame_needs_no_slider(read: Read, make_png: Callable[..., bytes]) -> None:
    page = read(render(ReportData("t", runs=(RunSection("r", frames=(Frame(make_png(1), 0.0),)),))))
    assert len(page.all("figure", "frame")) == 1
    assert not page.all("input")


def test_the_page_costs_little_more_than_its_pictures(full: ReportData) -> None:
    bare = len(render(ReportData("t")))
    assert bare < 60_000
    pictures = [full.samples, full.targets, *full.runs[0].frames, *full.sweeps[0].rows, *full.lineage, *full.data]
    weight = sum(len(p.png or b"") for p in pictures)  # type: ignore[union-attr]
    assert len(render(full)) < bare + 1.4 * weight + 60_000


def test_every_lineage_edge_runs_left_to_right(full: ReportData) -> None:
    html = render(full)
    svg = html[html.index("<svg") : html.index("</svg>")]
    edges = re.findall(r'<path d="M([\d.]+) [\d.]+ C.*? ([\d.]+) [\d.]+" class="edge">', svg)
    assert len(edges) == 5, "the parent that is not there is left out"
    assert all(float(end) > float(start) for start, end in edges)


def test_a_lineage_with_a_cycle_is_drawn(read: Read) -> None:
    nodes = (
        LineageNode("a", "gan", "a", parents=(("x", "b"),)),
        LineageNode("b", "gan", "b", parents=(("x", "a"), ("self", "b"))),
    )
    assert len(read(render(ReportData("t", lineage=nodes))).all("g", "node")) == 2


def test_an_edge_that_passes_below_all_cards_stays_in_the_picture() -> None:
    nodes = (
        LineageNode("data", "dataset", "glyphs"),
        LineageNode("features", "classifier", "features", parents=(("data", "data"),)),
        LineageNode("gan", "gan", "glyphs32", parents=(("data", "data"), ("extractor", "features"))),
    )
    svg = lineage_svg(nodes)
    height = float(re.search(r'height="([\d.]+)" class="lineage"', svg)[1])  # type: ignore[index]
    paths = re.findall(r'd="M([^"]+)" class="edge"', svg)
    ys = [float(y) for path in paths for y in re.findall(r"[\d.]+ ([\d.]+)", path)]
    assert len(paths) == 3
    assert max(ys) < height
