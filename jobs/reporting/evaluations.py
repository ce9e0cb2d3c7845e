"""Measured numbers with their protocols: of evaluations, with gates, and of what training and sweeps published."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.runs import RunRecord
from jobs.reporting.family import Family
from jobs.reporting.reader import Reader
from jobs.reporting.words import better_of
from tlgan.report import Evaluation, MetricRow

Gates = dict[str, tuple[str, bool]]
PROTOCOL = (
    "data",
    "extractor",
    "samples_fake",
    "samples_real",
    "reference",
    "seed",
    "ema",
    "estimator",
    "kernel",
    "resize",
)
"""What to tell first; the rest follows as it is stored."""


def evaluations_of(reader: Reader, family: Family) -> tuple[Evaluation, ...]:
    """Evaluations first, then what the runs measured themselves; the latest first."""
    latest = list(reversed(family.members))
    runs = [record for record in latest if record.kind == "evaluate"]
    others = [record for record in latest if record.kind != "evaluate"]
    found = [_evaluation(reader, record) for record in runs] + [_own_numbers(reader, record) for record in others]
    return tuple(evaluation for evaluation in found if evaluation.rows)


def metric_rows(reader: Reader, record: RunRecord) -> list[MetricRow]:
    """The last value of each metric that a run recorded."""
    events = reader.events(record.id)
    gates: Gates = {
        e["metric"]: (record.spec.get("gate", {}).get(e["metric"], e["bound"]), bool(e["passed"]))
        for e in events
        if e["type"] == "gate"
    }
    last = {e["name"]: e for e in events if e["type"] == "metric"}
    return _rows(last.values(), gates)


def published_rows(reader: Reader, record: RunRecord) -> list[MetricRow]:
    """The metrics in the manifest of what a run published."""
    manifests = [reader.manifest(output["ref"], output["digest"]) for output in record.outputs]
    return _rows([row for manifest in manifests if manifest for row in manifest.metrics], {})


def _rows(metrics: Iterable[dict[str, Any]], gates: Gates) -> list[MetricRow]:
    rows = []
    for metric in metrics:
        gate, passed = gates.get(metric["name"], (None, None))
        value = float("nan") if metric["value"] is None else float(metric["value"])
        protocol = _ordered(metric.get("protocol") or {})
        rows.append(MetricRow(metric["name"], value, protocol, better_of(metric["name"]), gate, passed))
    return rows


def _ordered(protocol: dict[str, Any]) -> dict[str, Any]:
    keys = dict.fromkeys([*(key for key in PROTOCOL if key in protocol), *protocol])
    return {key: protocol[key] for key in keys if protocol[key] is not None}


def _evaluation(reader: Reader, record: RunRecord) -> Evaluation:
    target, reference = record.inputs.get("target", {}), record.inputs.get("reference", {})
    note = f"{target.get('ref', 'the target')} against {reference.get('ref', 'the reference')}."
    promoted = [event["ref"] for event in reader.events(record.id) if event["type"] == "promoted"]
    if promoted and record.state == "succeeded":
        note += f" Published as {promoted[-1]}."
    return Evaluation(record.name, tuple(metric_rows(reader, record)), note)


def _own_numbers(reader: Reader, record: RunRecord) -> Evaluation:
    """Of a training: at its end. Of a sweep: the winner, measured again."""
    titles = {"sweep": "the best trial, measured again", "classifier": "on images kept out of training"}
    refs = " ".join(output["ref"] for output in record.outputs)
    title = f"{record.name}, {titles.get(record.kind, 'at the end of training')}"
    return Evaluation(title, tuple(published_rows(reader, record)), refs)
