"""The report: what happened, on one self-contained HTML page. `render(ReportData(...))` is all there is to call."""

from tlgan.report.model import (
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
from tlgan.report.render import render

__all__ = [
    "Axis",
    "Command",
    "Curve",
    "DataFacts",
    "Document",
    "Evaluation",
    "Frame",
    "HeadlineNumber",
    "LineageNode",
    "MetricRow",
    "Picture",
    "ReportData",
    "RunSection",
    "SweepSection",
    "TrialRow",
    "render",
]
