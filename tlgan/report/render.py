"""One report, one HTML file: the template filled with style, sections, data and scripts. The page fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from string import Template

from tlgan.report import leaderboard, sections
from tlgan.report.html import Html, el, escape
from tlgan.report.model import ReportData
from tlgan.report.prepare import prepare

SCRIPTS = ("base.js", "chart.js", "parallel.js", "page.js")


def render(report: ReportData) -> str:
    """The page. It works from `file://`, prints, and holds all its pictures, styles and scripts.

    The numbers stand in it once more as JSON, in the element with the id `report-data` (see `ReportData.to_json`;
    pictures left out). Equal reports give equal pages.
    """
    report = prepare(report)
    parts = [
        sections.lineage(report),
        sections.runs(report),
        leaderboard.sweeps(report),
        sections.evaluations(report),
        sections.data(report),
        sections.commands(report),
        sections.recipes(report),
        sections.environment(report),
    ]
    script = "".join(_file(name) for name in SCRIPTS)
    return Template(_file("template.html")).substitute(
        title=escape(report.title),
        policy=_policy(script),
        style=_file("style.css"),
        header=sections.header(report),
        navigation=_navigation(report),
        body="\n".join(part for part in parts if part),
        data=embedded_json(report),
        script=script,
    )


def embedded_json(report: ReportData) -> str:
    """The report's numbers as JSON that can stand inside `<script>`: no character that HTML would read."""
    text = json.dumps(report.without_pictures().to_json(), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _navigation(report: ReportData) -> Html:
    entries = [
        ("lineage", "Lineage", report.lineage),
        ("training", "Training", report.runs),
        ("sweep", "Sweep", report.sweeps),
        ("evaluation", "Evaluation", report.evaluations),
        ("data", "Data", report.data),
        ("repeat", "Repeat it", report.commands),
        ("recipes", "Recipes", report.recipes),
        ("environment", "Environment", report.environment),
    ]
    links = [el("a", title, href=f"#{anchor}") for anchor, title, there in entries if there]
    return el("nav", links, aria_label="Sections") if len(links) > 1 else Html("")


def _policy(script: str) -> str:
    """A content security policy: no network at all, and of all scripts only this one runs, known by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def _file(name: str) -> str:
    return resources.files("tlgan.report").joinpath(name).read_text(encoding="utf-8")
