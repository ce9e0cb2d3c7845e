"""The sweep: parallel coordinates (drawn by the script) and the leaderboard with a thumbnail grid a trial."""

from __future__ import annotations

import math

from tlgan.report.html import Html, count, el, number, picture, zoomable
from tlgan.report.model import Axis, ReportData, SweepSection, TrialRow
from tlgan.report.sections import ARROWS, badge, plain, section, table

FEW = 20


def sweeps(report: ReportData) -> Html | None:
    if not report.sweeps:
        return None
    return section("sweep", "Sweep", *(sweep_article(sweep, i) for i, sweep in enumerate(report.sweeps)))


def sweep_article(sweep: SweepSection, index: int) -> Html:
    rows = sweep.rows
    if not rows:
        return el("article", el("h3", sweep.name), el("p", "No trial was started.", class_="empty"))
    measured = [row for row in rows if is_measured(row)]
    line = f"{count(len(rows), 'trial')}, {len(measured)} with a value · {sweep.objective}, {ARROWS[sweep.mode]}"
    none = None if measured else el("p", "No trial has a finite objective, so there is no ranking.", class_="empty")
    return el(
        "article",
        el("h3", sweep.name, el("span", line, class_="run-line")),
        el("p", sweep.note, class_="note") if sweep.note else None,
        none,
        coordinates(sweep, index) if measured and sweep.axes else None,
        shares(sweep) if sweep.importance else None,
        leaderboard(sweep),
        class_="sweep",
        data_sweep=index,
    )


def is_measured(row: TrialRow) -> bool:
    return row.objective is not None and math.isfinite(row.objective)


def coordinates(sweep: SweepSection, index: int) -> Html:
    names = ", ".join(axis.name for axis in sweep.axes or ())
    label = (
        f"Parallel coordinates of {sweep.name}: {names} and {sweep.objective}. The table below has the same numbers."
    )
    hint = el("span", "drag along an axis to filter, click it to clear", class_="note")
    key = el("span", "best", el("i", class_="heat"), "worst", class_="note")
    return el(
        "figure",
        el("figcaption", el("strong", "Parameters against the objective"), key, hint),
        el("div", el("div", class_="plot", role="img", aria_label=label), class_="scroll"),
        class_="chart parallel",
        data_sweep=index,
    )


def shares(sweep: SweepSection) -> Html:
    """Bars: how much of the differences between trials each parameter explains."""
    names = [name for name, _ in sweep.importance]
    rows = [
        el(
            "tr",
            el("th", short_name(name, names), scope="row", title=name),
            el("td", el("i", class_="share", style=f"width: {100 * share:.1f}%"), class_="bar"),
            el("td", f"{100 * share:.0f} %", class_="num"),
        )
        for name, share in sweep.importance
    ]
    said = f"Importance: share of the variance of {sweep.objective} (by rank) that each explains alone"
    few = f"; {count(len(sweep.rows), 'trial')} tell little" if len(sweep.rows) < FEW else ""
    return el("figure", el("figcaption", said + few), table([], rows, class_="importance", label=said), class_="chart")


def leaderboard(sweep: SweepSection) -> Html:
    """Rows in the given order; only trials with a finite objective have a rank."""
    finals = any(row.final is not None for row in sweep.rows)
    pictures = any(row.png for row in sweep.rows)
    axes = sweep.axes or ()
    names = [axis.name for axis in axes]
    head = [column("#", "num")] + ([column("Samples")] if pictures else []) + [column("Trial"), column("State")]
    head += [column(sweep.objective, "num")] + ([column("Re-measured", "num")] if finals else [])
    head += [column("Images", "num")] + [
        column(short_name(axis.name, names), align(axis), title=axis.name) for axis in axes
    ]
    rank, rows = 0, []
    for i, row in enumerate(sweep.rows):
        rank += is_measured(row)
        rows.append(trial_row(sweep, row, i, rank if is_measured(row) else None, finals, pictures))
    return table(head, rows, class_="leaderboard", label=f"Leaderboard of {sweep.name}")


def column(name: str, class_: str | None = None, title: str | None = None) -> Html:
    return el("th", name, scope="col", class_=class_, title=title)


def short_name(name: str, names: list[str]) -> str:
    """`train.lr_g` is shown as `lr_g` where no other parameter ends the same way."""
    last = name.rpartition(".")[2]
    return last if last and sum(n.rpartition(".")[2] == last for n in names) == 1 else name


def align(axis: Axis) -> str | None:
    return None if axis.scale == "category" else "num"


def trial_row(sweep: SweepSection, row: TrialRow, index: int, rank: int | None, finals: bool, pictures: bool) -> Html:
    caption = f"{row.trial} · {sweep.objective} {number(row.objective)}"
    cells = [el("td", str(rank) if rank else "–", class_="num rank")]
    if pictures:
        alt = f"Samples of trial {row.trial}"
        shown = zoomable(row.png, alt, caption, class_="thumb") if row.png else picture(None, alt)
        cells.append(el("td", shown))
    published = badge("published", "published") if row.trial == sweep.published else None
    cells.append(el("th", el("span", row.trial, class_="trial"), published, scope="row"))
    reason = el("details", el("summary", "reason"), el("pre", row.reason, class_="reason")) if row.reason else None
    cells.append(el("td", badge("early", "Stopped early") if row.stopped_early else badge(row.state), reason))
    cells.append(el("td", number(row.objective), class_="num value"))
    if finals:
        cells.append(el("td", number(row.final), class_="num"))
    cells.append(el("td", number(row.nimg), class_="num"))
    cells += [el("td", plain(row.params.get(axis.name)), class_=align(axis)) for axis in sweep.axes or ()]
    classes = " ".join(w for w, yes in (("best", rank == 1), ("failed", row.state == "failed")) if yes)
    return el("tr", cells, data_trial=index, class_=classes or None)
