"""A report with every part filled, and a strict reader of the page it becomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tlgan import grid
from tlgan.report import (
    Axis,
    Command,
    Curve,
    DataFacts,
    Document,
    Evaluation,
    Frame,
    HeadlineNumber,
    LineageNode,
    MetricRow,
    Picture,
    ReportData,
    RunSection,
    SweepSection,
    TrialRow,
)

VOID = {"meta", "link", "img", "input", "br"}


@dataclass
class Page(HTMLParser):
    """The start tags in order, checked for balance while reading."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute stands twice in <{tag}>: {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment on the page: {data[:60]}")

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def payload(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.scripts[0])
        return value

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.tags]

    def all(self, tag: str, class_: str | None = None) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and (class_ is None or class_ in (a.get("class") or "").split())]


@pytest.fixture
def read() -> Callable[[str], Page]:
    def _read(html: str) -> Page:
        page = Page()
        page.feed(html)
        page.close()
        assert not page.open, f"never closed: {page.open}"
        return page

    return _read


def png(n: int = 4, channels: int = 1, seed: int = 0) -> bytes:
    images = np.random.default_rng(seed).integers(0, 256, (n, channels, 8, 8), dtype=np.uint8)
    return grid.png_bytes(grid.to_grid(images))


@pytest.fixture
def make_png() -> Callable[..., bytes]:
    return png


def _trial(i: int) -> TrialRow:
    params = {
        "transfer.freeze_d": i % 4,
        "train.lr_g": 10.0 ** (-4 + 0.2 * i),
        "transfer.method": ["freeze", "tune"][i % 2],
    }
    return TrialRow(
        f"t{i}", "succeeded", 0.02 * (i + 1), 64000, params, 0.021 if i == 0 else None, png(seed=i), None, i > 2
    )


@pytest.fixture
def full() -> ReportData:
    kimg = tuple(float(k) for k in range(0, 64, 2))
    losses = (Curve("G", kimg, tuple(1 + 0.1 * math.sin(k) for k in kimg)), Curve("D", kimg, tuple(0.5 for _ in kimg)))
    kid = Curve("kid", (0.0, 32.0, 64.0), (0.4, math.nan, 0.05), "min")
    film = tuple(Frame(png(seed=i), 8.0 * i) for i in range(9))
    failed = TrialRow("t8", "failed", None, 4000, {"transfer.freeze_d": 1}, reason="RuntimeError: loss is NaN")
    protocol = {"extractor": "embedded", "samples": 2000, "reference_digest": "ab" * 32, "ema": True, "resize": None}
    nodes = (
        LineageNode("d0", "dataset", "glyphs", "1" * 64, (), "57,000 images", png()),
        LineageNode("c0", "classifier", "features:latest", "2" * 64, (("data", "d0"),)),
        LineageNode("g0", "gan", "glyphs32:latest", "3" * 64, (("data", "d0"), ("features", "c0"))),
        LineageNode("d1", "dataset", "digits", "4" * 64),
        LineageNode("g1", "gan", "digits32:best", "5" * 64, (("init_from", "g0"), ("data", "d1"), ("gone", "nowhere"))),
    )
    return ReportData(
        title="glyphs to digits",
        created="2025-11-21T03:24:10+00:00",
        outcome="The best trial reaches a KID of 0.02.",
        reason="a note",
        samples=Picture(png(48), "after 64 kimg"),
        targets=Picture(png(48, seed=1), "48 digits", "Handwritten digits"),
        numbers=(HeadlineNumber("KID", 0.0211, "2,000 samples"), HeadlineNumber("Time", "7 min")),
        lineage=nodes,
        runs=(
            RunSection("base", "pretrain", "succeeded", None, 64.0, 64.0, 130.2, 2, losses, (kid,), film),
            RunSection("broken", "finetune", "failed", "WorkerDied: rank 1 was killed", 12.0, 64.0, 9.0),
        ),
        sweeps=(
            SweepSection(
                "search",
                "kid",
                "min",
                (*(_trial(i) for i in range(8)), failed),
                (
                    Axis("transfer.freeze_d"),
                    Axis("train.lr_g", "log"),
                    Axis("transfer.method", "category", ("freeze", "tune")),
                ),
                "t0",
                "ASHA",
            ),
        ),
        evaluations=(
            Evaluation(
                "digits32:best",
                (
                    MetricRow("kid", 0.021, protocol, "min", "< 0.05", True),
                    MetricRow("recall", 0.3, protocol, "max", ">= 0.5", False),
                    MetricRow("fid", math.nan),
                ),
                "held out",
            ),
        ),
        data=(DataFacts("digits", 1797, 32, 1, "4" * 64, {"0": 178, "1": 182}, (("bad.png", "truncated"),), png()),),
        recipes=(Document("finetune.yaml", "# comment\nversion: 1\ntrain: {kimg: 64}\n"),),
        commands=(Command("Run it", "tlgan run spec.yaml -s a.b=1"),),
        environment={"torch": "2.14.1", "python": "3.11"},
    )
