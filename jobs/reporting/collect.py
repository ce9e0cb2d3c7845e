"""From a run in the store to the data of its page."""

from __future__ import annotations

from cluster.runs import FINAL
from cluster.store import ArtifactStore
from jobs.reporting.datasets import datasets_of
from jobs.reporting.evaluations import evaluations_of
from jobs.reporting.family import Family, family_of
from jobs.reporting.lineage import lineage_of
from jobs.reporting.reader import Reader
from jobs.reporting.repeat import commands_of, environment_of, recipes_of
from jobs.reporting.result import Result, result_of
from jobs.reporting.story import numbers_of, outcome_of
from jobs.reporting.sweeps import board_of, sweep_section, winner_of
from jobs.reporting.training import TRAINING, reason_of, run_section, trial_section
from jobs.reporting.words import noun_of
from tlgan.manifest import now_utc
from tlgan.report import Picture, ReportData, RunSection
from tlgan.report.html import count, number, png_size

SHEET = (6, 8)


def collect(artifacts: ArtifactStore, run: str) -> ReportData:
    """Everything the store knows of a run and of what it stands on.

    `run` is an id, its beginning, or a name, as for `Runs.get`. A run that failed, was stopped or is under way gives a
    page with what there is. Raises `NotFound` for an unknown run.
    """
    reader = Reader(artifacts)
    subject = reader.runs.get(run)
    family = family_of(reader, subject)
    data = datasets_of(reader, family)
    result = result_of(reader, family, data)
    runs = training_of(reader, family)
    return ReportData(
        title=subject.name,
        created=subject.finished if subject.state in FINAL and subject.finished else now_utc(),
        state=subject.state,
        outcome=outcome_of(reader, family, result),
        reason=reason_of(subject),
        samples=samples_of(reader, result, runs),
        targets=targets_of(result),
        numbers=numbers_of(reader, family, result),
        lineage=lineage_of(reader, family, data),
        runs=runs,
        sweeps=tuple(sweep_section(reader, record) for record in family.members if record.kind == "sweep"),
        evaluations=evaluations_of(reader, family),
        data=tuple(one.part() for one in data),
        recipes=recipes_of(reader, family, result),
        commands=commands_of(reader, family, result),
        environment=environment_of(reader, family),
    )


def training_of(reader: Reader, family: Family) -> tuple[RunSection, ...]:
    """The trainings, the latest first; of a sweep, the trial that was published or is best so far."""
    sections = []
    for record in reversed(family.members):
        if record.kind in TRAINING:
            sections.append(run_section(reader, record))
        row = winner_of(reader, record) if record.kind == "sweep" else None
        if row:
            best = "published" if record.facts.get("winner") == row["trial"] else "best so far"
            of = count(len(board_of(reader, record)), "trial")
            sections.append(trial_section(reader, record, row, f"{best}, out of {of}"))
    return tuple(sections)


def samples_of(reader: Reader, result: Result, runs: tuple[RunSection, ...]) -> Picture | None:
    """The published generator's grid; before there is one, the newest grid of the training."""
    if result.manifest is not None:
        png = reader.file(result.manifest, "grid.png")
        return Picture(png, f"by {result.manifest.name}, not picked by hand") if png else None
    frame = next((run.frames[-1] for run in runs if run.frames), None)
    return Picture(frame.png, f"after {number(frame.kimg)} kimg") if frame else None


def targets_of(result: Result) -> Picture | None:
    """Real images, in a sheet of the same layout as the samples'."""
    if result.target is None:
        return None
    spec = (result.maker.spec if result.maker else {}) or {}
    grid = (spec.get("base", spec) or {}).get("grid", {})
    png = result.target.sheet(grid.get("rows", SHEET[0]), grid.get("cols", SHEET[1]))
    if png is None:
        return None
    shown = noun_of(result.target.spec)
    assert png_size(png)
    return Picture(png, f"{shown} it learned from ({result.target.label}, {count(result.target.count, 'image')})")
