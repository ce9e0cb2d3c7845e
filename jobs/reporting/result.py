"""What a run came to: the artifact that matters most, who made it, and the numbers that say how good it is."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.runs import RunRecord
from jobs.reporting.datasets import Data
from jobs.reporting.evaluations import metric_rows, published_rows
from jobs.reporting.family import Family, maker_of
from jobs.reporting.reader import Reader
from tlgan.manifest import Manifest
from tlgan.report import MetricRow

MAKERS = ("pretrain", "finetune", "sweep")


@dataclass(frozen=True)
class Result:
    """`manifest` is the final generator (or classifier); `maker` the run that made or was to make it, `rows` its numbers,
    by `judge`, the run that measured them. `target` and `reference`: the images it learned, and those it is held against."""

    manifest: Manifest | None
    maker: RunRecord | None
    judge: RunRecord | None
    rows: tuple[MetricRow, ...]
    target: Data | None
    reference: Data | None

    def row(self, metric: str) -> MetricRow | None:
        return next((row for row in self.rows if row.name == metric), None)


def result_of(reader: Reader, family: Family, data: list[Data]) -> Result:
    own = list(reversed(family.own))
    maker = _maker(own)
    judge = next((r for r in own if r.kind == "evaluate" and metric_rows(reader, r)), None)
    manifest = _output(reader, maker)
    if manifest is None:
        user = next((r for r in own if r.kind in ("evaluate", "generate") and "target" in r.inputs), None)
        if user:
            manifest = reader.manifest(user.inputs["target"]["ref"], user.inputs["target"]["digest"])
            maker = (manifest and maker_of(reader, manifest)) or maker
    if judge and manifest and judge.inputs.get("target", {}).get("digest") != manifest.digest:
        judge = None
    rows = metric_rows(reader, judge) if judge else published_rows(reader, maker) if maker else []
    judge = judge or maker
    return Result(
        manifest=manifest,
        maker=maker,
        judge=judge,
        rows=tuple(rows),
        target=_used(maker, data, "data"),
        reference=_used(judge, data, "reference", "data"),
    )


def _maker(latest_first: list[RunRecord]) -> RunRecord | None:
    """The last run that published a generator; else the last that was to; else the last one that made anything."""
    generators = [r for r in latest_first if r.kind in MAKERS]
    done = [r for r in generators if r.outputs]
    return next(iter([*done, *generators, *[r for r in latest_first if r.kind == "classifier"]]), None)


def _output(reader: Reader, record: RunRecord | None) -> Manifest | None:
    if record is None or not record.outputs:
        return None
    return reader.manifest(record.outputs[-1]["ref"], record.outputs[-1]["digest"])


def _used(record: RunRecord | None, data: list[Data], *roles: str) -> Data | None:
    for role in roles:
        entry = record.inputs.get(role) if record else None
        if entry:
            return next((one for one in data if one.node == entry["digest"]), None)
    return None
