"""The sections of the page, each a function from its part of the report to HTML; charts are drawn by the scripts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from tlgan import shapes
from tlgan.report.html import Html, count, duration, el, moment, number, picture, short, zoomable
from tlgan.report.lineage import lineage_svg
from tlgan.report.model import (
    Command,
    Curve,
    DataFacts,
    Document,
    Evaluation,
    HeadlineNumber,
    MetricRow,
    Picture,
    ReportData,
    RunSection,
)

STATE_WORDS = {
    "pending": "Waiting",
    "running": "Running",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "stopped": "Stopped",
}
ARROWS = {"min": "lower is better", "max": "higher is better"}


def badge(state: str, text: str | None = None) -> Html:
    return el("span", text or STATE_WORDS.get(state, state), class_=f"badge {state}")


def section(anchor: str, title: str, *body: Html | None, lead: str | None = None) -> Html:
    """A titled part of the page."""
    note = el("p", lead, class_="lead") if lead else None
    return el(
        "section", el("h2", title, id=f"{anchor}-title"), note, body, id=anchor, aria_labelledby=f"{anchor}-title"
    )


def reason_box(reason: str | None) -> Html | None:
    return el("pre", reason, class_="reason") if reason else None


def copy_button(text: str, label: str) -> Html:
    return el("button", "Copy", type="button", class_="copy", data_copy=text, aria_label=label)


def table(head: Iterable[Html | str], rows: Iterable[Html], *, class_: str = "", label: str = "") -> Html:
    """A table that scrolls sideways by itself where the page is too narrow."""
    body = el("table", el("thead", el("tr", list(head))), el("tbody", list(rows)), class_=class_)
    return el("div", body, class_="scroll", tabindex=0, role="region", aria_label=label)


def header(report: ReportData) -> Html:
    """Title, when, outcome in words, the two headline pictures and the headline numbers."""
    when = el("time", moment(report.created), datetime=report.created) if report.created else None
    pictures = [
        headline_picture(p, title) for p, title in ((report.samples, "Generated"), (report.targets, "Real")) if p
    ]
    return el(
        "header",
        el("p", "tlgan report", " · " if when else None, when, class_="eyebrow"),
        el("h1", report.title),
        el("p", badge(report.state), " ", report.outcome, class_="outcome"),
        reason_box(report.reason),
        el(
            "div",
            el("div", pictures, class_="headline-pictures") if pictures else None,
            el("dl", [headline_number(n) for n in report.numbers], class_="numbers") if report.numbers else None,
            class_="hero",
        ),
    )


def headline_picture(shown: Picture, title: str) -> Html:
    caption = el("figcaption", el("strong", title), " ", shown.caption)
    alt = shown.alt or f"{title} images. {shown.caption}".strip()
    return el("figure", zoomable(shown.png, alt, f"{title}: {shown.caption}".strip(": ")), caption)


def headline_number(n: HeadlineNumber) -> Html:
    note = el("dd", n.note, class_="note") if n.note else None
    return el("div", el("dt", n.label), el("dd", number(n.value), class_="value"), note)


def lineage(report: ReportData) -> Html | None:
    if not report.lineage:
        return None
    lead = "What was made from what. Every box is immutable and named by its digest; click a digest to copy it."
    scroll = el("div", lineage_svg(report.lineage), class_="scroll", tabindex=0, role="region", aria_label="Lineage")
    return section("lineage", "Lineage", scroll, lead=lead)


def runs(report: ReportData) -> Html | None:
    if not report.runs:
        return None
    return section("training", "Training", *(run_article(run, i) for i, run in enumerate(report.runs)))


def run_article(run: RunSection, index: int) -> Html:
    """One run: how it went in a line, the film of samples, the charts."""
    charts = [chart(f"Losses of {run.name}", "Losses", index, "losses", None, run.losses)] if run.losses else []
    charts += [chart(f"{c.name} of {run.name}", c.name, index, "metrics", i, [c]) for i, c in enumerate(run.metrics)]
    empty = None if charts else el("p", "No losses or metrics were recorded.", class_="empty")
    sides = "run-body" + (" with-film" if run.frames else "")
    return el(
        "article",
        el("h3", run.name, " ", badge(run.state), el("span", run_line(run), class_="run-line")),
        reason_box(run.reason),
        el("div", film(run), el("div", charts, empty, class_="charts"), class_=sides),
        class_="run",
    )


def run_line(run: RunSection) -> str:
    """`finetune · 64 of 64 kimg · 2 min 10 s · 492 images/s · 2 workers`, of what is known."""
    words = [run.kind]
    if run.kimg is not None:
        of = f" of {number(run.kimg_planned)}" if run.kimg_planned is not None else ""
        words.append(f"{number(run.kimg)}{of} kimg")
    words.append(duration(run.seconds) or "")
    if run.kimg and run.seconds and math.isfinite(run.kimg * 1000 / run.seconds):
        words.append(f"{run.kimg * 1000 / run.seconds:,.0f} images/s")
    if run.workers is not None:
        words.append(count(run.workers, "worker"))
    return " · ".join(word for word in words if word)


def chart(label: str, title: str, run: int, group: str, index: int | None, curves: Iterable[Curve]) -> Html:
    """The place of a chart; the script finds its curves in the page's data by `run`, `group` and `index`."""
    curves = list(curves)
    better = ARROWS.get(curves[0].better or "") if len(curves) == 1 else None
    return el(
        "figure",
        el("figcaption", el("strong", title), el("span", better, class_="note") if better else None),
        el("div", role="img", aria_label=f"{label}. {summary(curves)}", class_="plot"),
        class_="chart",
        data_run=run,
        data_group=group,
        data_index=index,
    )


def summary(curves: Iterable[Curve]) -> str:
    """What a curve shows, in a sentence each: first, last and best value, and how many are not finite."""
    return " ".join(sentence(curve) for curve in curves)


def sentence(curve: Curve) -> str:
    points = [(k, v) for k, v in zip(curve.kimg, curve.values, strict=True) if math.isfinite(v)]
    if not points:
        return f"{curve.name}: no finite value."
    marked = [("first", points[0]), ("last", points[-1])]
    if curve.better:
        marked.append(("best", (min if curve.better == "min" else max)(points, key=lambda p: p[1])))
    words = [f"{which} {number(v)} at {number(k)} kimg" for which, (k, v) in marked]
    broken = len(curve.values) - len(points)
    return f"{curve.name}: {', '.join(words)}" + (f", {count(broken, 'value')} not finite." if broken else ".")


def film(run: RunSection) -> Html | None:
    """Sample grids over time with a slider; on paper and without scripts up to six of them stand side by side."""
    if not run.frames:
        return None
    last = len(run.frames) - 1
    keys = {round(i * last / 5) for i in range(6)} if last > 5 else set(range(last + 1))
    figures = []
    for i, frame in enumerate(run.frames):
        caption = f"{number(frame.kimg)} kimg"
        shown = picture(frame.png, f"Samples of {run.name} after {caption}")
        classes = "frame" + (" key" if i in keys else "") + (" on" if i == last else "")
        figures.append(el("figure", shown, el("figcaption", caption), class_=classes))
    controls = el(
        "div",
        el("button", type="button", class_="play", aria_label="Play"),
        el(
            "input",
            type="range",
            min=0,
            max=last,
            value=last,
            step=1,
            aria_label=f"Sample grids of {run.name} over time",
        ),
        el("output", f"{number(run.frames[-1].kimg)} kimg"),
        class_="controls",
    )
    return el("div", el("div", figures, class_="frames"), controls if last else None, class_="film")


def evaluations(report: ReportData) -> Html | None:
    if not report.evaluations:
        return None
    lead = "A number means something only with its protocol; open it before comparing."
    return section("evaluation", "Evaluation", *(evaluation(e) for e in report.evaluations), lead=lead)


def evaluation(e: Evaluation) -> Html:
    if not e.rows:
        return el("article", el("h3", e.title), el("p", "No metric was measured.", class_="empty"))
    gated = any(row.gate for row in e.rows)
    head = [el("th", "Metric", scope="col"), el("th", "Value", scope="col", class_="num")]
    head += [el("th", "Gate", scope="col")] if gated else []
    head += [el("th", "Protocol", scope="col")]
    rows = [metric_row(row, gated) for row in e.rows]
    note = el("p", e.note, class_="note") if e.note else None
    return el("article", el("h3", e.title), note, table(head, rows, class_="metrics", label=e.title))


def metric_row(row: MetricRow, gated: bool) -> Html:
    better = el("span", ARROWS[row.better], class_="note") if row.better else None
    cells = [el("th", row.name, better, scope="row"), el("td", number(row.value), class_="num value")]
    if gated:
        verdict = {True: badge("succeeded", "passed"), False: badge("failed", "missed"), None: None}[row.passed]
        cells.append(el("td", el("code", row.gate), " ", verdict) if row.gate else el("td", "–"))
    cells.append(el("td", protocol(row.protocol)))
    return el("tr", cells)


def protocol(facts: dict[str, Any]) -> Html:
    if not facts:
        return Html("–")
    return el("details", el("summary", brief(facts) or "protocol"), definitions(facts))


def brief(facts: dict[str, Any]) -> str:
    """`2,000 samples against 899 real, features@92636c83d3c3`; of another protocol its first two values."""
    fake, real = facts.get("samples_fake"), facts.get("samples_real")
    if fake is None or real is None:
        return ", ".join(plain(v) for v in list(facts.values())[:2] if v is not None)
    compared = f"{number(fake)} samples against {number(real)} real"
    return f"{compared}, {plain(facts['extractor'])}" if facts.get("extractor") else compared


def plain(value: Any) -> str:
    """A value of a spec or protocol as a person would write it; long digests shortened."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    text = number(value) if isinstance(value, float | bool | int) else "–" if value is None else str(value)
    return short(text) + "…" if re.fullmatch(r"(sha256:)?[0-9a-f]{40,64}", text) else text


def definitions(facts: dict[str, Any]) -> Html:
    pairs = [el("div", el("dt", str(key).replace("_", " ")), el("dd", plain(value))) for key, value in facts.items()]
    return el("dl", pairs, class_="facts")


def data(report: ReportData) -> Html | None:
    if not report.data:
        return None
    return section("data", "Data", el("div", [dataset(facts) for facts in report.data], class_="cards"))


def dataset(facts: DataFacts) -> Html:
    size = f"{shapes.text(facts.resolution).replace('x', ' × ')} px" if facts.resolution else None
    colour = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}.get(facts.channels or 0)
    line = ", ".join(w for w in (count(facts.count, "image"), size, colour) if w)
    labels = None
    if facts.labels:
        named = ", ".join(f"{name} ({n:,})" for name, n in facts.labels.items())
        labels = el("details", el("summary", count(len(facts.labels), "label")), el("p", named, class_="labels"))
    skipped = None
    if facts.skipped:
        items = [el("li", el("code", name), f" {reason}") for name, reason in facts.skipped]
        skipped = el(
            "details", el("summary", f"{count(len(facts.skipped), 'file')} skipped"), el("ul", items), class_="warn"
        )
    digest = None
    if facts.digest:
        shown = el("code", short(facts.digest))
        digest = el(
            "p", "digest ", shown, " ", copy_button(facts.digest, f"Copy digest of {facts.name}"), class_="note"
        )
    image = zoomable(facts.png, f"Images of {facts.name}", facts.name) if facts.png else None
    return el(
        "article", image, el("div", el("h3", facts.name), el("p", line), digest, labels, skipped), class_="dataset"
    )


def commands(report: ReportData) -> Html | None:
    if not report.commands:
        return None
    return section("repeat", "Repeat it", *(command(c) for c in report.commands))


def command(c: Command) -> Html:
    code = el("pre", el("code", c.command))
    return el("div", el("h3", c.title), el("div", code, copy_button(c.command, f"Copy: {c.title}"), class_="shell"))


def recipes(report: ReportData) -> Html | None:
    if not report.recipes:
        return None
    return section("recipes", "Recipes", *(recipe(d) for d in report.recipes))


def recipe(d: Document) -> Html:
    bar = el("summary", el("span", d.title))
    code = el("div", el("pre", el("code", yaml(d.text))), copy_button(d.text, f"Copy {d.title}"), class_="shell")
    return el("details", bar, code, class_="recipe")


def yaml(text: str) -> list[Html | str]:
    """Keys and comments marked; everything stays the text it was."""
    parts: list[Html | str] = []
    for line in text.splitlines(keepends=True):
        match = re.match(r"(\s*(?:- )*)([\w.\-/]+)(:\s)(.*)", line, re.DOTALL)
        if line.lstrip().startswith("#"):
            parts.append(el("span", line, class_="comment"))
        elif match:
            parts += [match[1], el("span", match[2], class_="key"), match[3], match[4]]
        else:
            parts.append(line)
    return parts


def environment(report: ReportData) -> Html | None:
    if not report.environment:
        return None
    return section("environment", "Environment", definitions(dict(report.environment)))
