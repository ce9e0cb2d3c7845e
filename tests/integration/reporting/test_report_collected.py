"""A page about runs that really were: everything on it comes from the store, in plain words."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.specfile import load_spec, parse_job
from jobs.reporting import collect
from jobs.verbs import VERBS
from tlgan.report import LineageNode, ReportData, render
from tlgan.report.html import png_size

from .conftest import PIPELINE, Made


@pytest.fixture(scope="module")
def report(made: Made) -> ReportData:
    return collect(made.artifacts, made.pipeline)


def test_the_outcome_says_what_was_made_how_good_it_is_and_how_it_was_found(report: ReportData) -> None:
    assert report.state == "succeeded"
    assert report.outcome.startswith("A generator of 32 px digits was fine-tuned from zeros32 on 60 images; KID ")
    assert "on 899 held-out digits. The best of 3 trials kept " in report.outcome
    assert " of D frozen, with augment diffaugment and lr_g " in report.outcome
    assert report.outcome.endswith("The generator passed the gate (KID < 1000) and is now digits32:production.")


def test_headline_pictures_have_one_layout_and_the_numbers_their_protocol(report: ReportData) -> None:
    assert report.samples
    assert report.targets
    assert png_size(report.samples.png) == png_size(report.targets.png) == (8 * 34 - 2, 6 * 34 - 2)
    numbers = {number.label: number for number in report.numbers}
    assert list(numbers) == ["KID", "Real images", "Trials", "Time"]
    assert numbers["KID"].note == "40 samples, 899 held-out digits"
    assert (numbers["Real images"].value, numbers["Real images"].note) == ("60", "digits, train split")
    assert (numbers["Trials"].value, numbers["Trials"].note) == ("3", "1 stopped early, 1 failed")
    assert numbers["Time"].note == "4 stages"


def test_lineage_reaches_from_the_generator_to_the_pretraining_all_data_and_the_classifier(report: ReportData) -> None:
    nodes = {node.id: node for node in report.lineage}
    final = next(node for node in report.lineage if node.label == "digits32")
    roles = {role: nodes[parent] for role, parent in final.parents}
    assert {role: node.label for role, node in roles.items()} == {
        "init_from": "zeros32",
        "data": "digits, train split",
        "reference": "digits, test split",
        "extractor": "digit-features",
    }
    above = {role: nodes[parent].label for role, parent in roles["init_from"].parents}
    assert above == {"data": "digits", "extractor": "digit-features"}
    pictured = [n for n in report.lineage if n.kind != "classifier"]
    assert all(png_size(node.png) == (66, 66) for node in pictured)
    assert " kimg, KID " in final.note


def test_trainings_have_curves_and_films(report: ReportData) -> None:
    assert [run.name for run in report.runs] == ["search, trial 000", "base", "digit-features"]
    trial, base, classifier = report.runs
    assert (trial.kind, trial.state, trial.kimg) == ("published, out of 3 trials", "succeeded", 0.5)
    assert (base.kimg, base.kimg_planned, base.workers) == (0.6, 0.6, 1)
    assert {curve.name for curve in base.losses} == {"G", "D"}
    assert [(c.name, c.better) for c in base.metrics] == [("kid", "min")]
    assert len(base.metrics[0].kimg) == 3
    assert [frame.kimg for frame in base.frames] == sorted({frame.kimg for frame in base.frames})
    assert base.frames[0].kimg == 0
    assert {curve.name for curve in classifier.losses} == {"classifier"}
    for run in report.runs:
        assert run.seconds is not None
        assert run.seconds > 0
        for curve in run.losses:
            assert all(math.isfinite(value) for value in curve.values)
            assert list(curve.kimg) == sorted(set(curve.kimg))


def test_the_sweep_shows_trials_with_pictures_parameters_and_what_became_of_them(report: ReportData) -> None:
    (sweep,) = report.sweeps
    first, second, third = sweep.rows
    assert (sweep.published, sweep.objective, sweep.mode) == (first.trial, "kid", "min") == ("000", "kid", "min")
    assert (first.final is not None, first.stopped_early, second.stopped_early) == (True, False, True)
    assert (second.reason, third.state, third.reason) == (None, "failed", "the disk <is> full")
    assert first.png
    assert second.png
    assert third.png is None
    assert [(axis.name, axis.scale, axis.choices) for axis in sweep.axes or ()] == [
        ("augment.name", "category", ("none", "diffaugment")),
        ("train.lr_g", "log", None),
        ("transfer.freeze_d", "linear", None),
    ]


def test_evaluations_carry_protocols_and_gates(report: ReportData) -> None:
    check, search, base, features = report.evaluations
    kid = next(row for row in check.rows if row.name == "kid")
    assert (kid.gate, kid.passed, kid.better) == ("< 1000", True, "min")
    assert next(row for row in check.rows if row.name == "recall").gate is None
    assert list(kid.protocol)[:3] == ["extractor", "samples_fake", "samples_real"]
    assert "digits32:production" in check.note
    assert [row.protocol["samples_fake"] for row in (*search.rows, *base.rows)] == [48, 32]
    assert {row.name for row in features.rows} >= {"accuracy", "f1"}


def test_data_facts_count_labels_and_show_the_images(report: ReportData) -> None:
    facts = {one.name: one for one in report.data if one.count in (60, 899)}
    assert set(facts) == {"digits, train split", "digits, test split"}
    assert len(report.data) == 4
    for one in report.data:
        assert one.labels is not None
        assert sum(one.labels.values()) == one.count
        assert one.png
        assert len(one.digest or "") == 64


def test_the_shown_spec_is_the_job_that_ran(report: ReportData, tmp_path: Path) -> None:
    title, text = report.recipes[0].title, report.recipes[0].text
    (tmp_path / "small.yaml").write_text(text)
    assert title == "small.yaml, the spec"
    assert load_spec(tmp_path / "small.yaml") == parse_job(PIPELINE)
    assert [line for line in text.splitlines() if line.startswith("  ") and line[2] != " "] == [
        *("  features:", "  base:", "  tune:", "  eval:")
    ]
    titles = " ".join(document.title for document in report.recipes[1:])
    assert [name in titles for name in ("digits32@", "zeros32@", "digit-features@")] == [True] * 3


def test_every_command_is_one_that_there_is(report: ReportData) -> None:
    lines = [line for command in report.commands for line in command.command.replace("|\n", "| ").splitlines()]
    verbs = [shlex.split(line)[1:3] for line in lines if line.startswith("tlgan ")]
    assert len(verbs) >= 6
    assert [words for words in verbs if words[0] not in VERBS and " ".join(words) not in VERBS] == []
    assert f"export TLGAN_STORE={report.environment['store']}" in lines
    assert any("tlgan pull digits32:production" in line for line in lines)


def test_the_page_has_every_section(report: ReportData, read: Callable[[str], Any]) -> None:
    page = read(render(report))
    sections = {"lineage", "training", "sweep", "evaluation", "data", "repeat", "recipes", "environment"}
    assert sections <= page.ids
    assert len(page.pictures) >= 2 + 3 + 4
    assert "the disk <is> full" in "".join(page.words)


def test_the_same_store_gives_the_same_page(made: Made, report: ReportData) -> None:
    assert render(collect(made.artifacts, "small")) == render(report)


@pytest.mark.parametrize(
    ("stage", "beginning", "trainings"),
    [
        ("features", "A classifier of digits was trained on 1,797 images; accuracy ", 1),
        ("base", "A generator of 32 px digits was trained from scratch on 537 images; KID ", 2),
        ("tune", "A generator of 32 px digits was fine-tuned from zeros32 on 60 images; KID ", 3),
        ("eval", "A generator of 32 px digits was fine-tuned from zeros32 on 60 images; KID ", 3),
    ],
)
def test_each_kind_of_run_has_its_page(made: Made, stage: str, beginning: str, trainings: int) -> None:
    report = collect(made.artifacts, made.runs[stage])
    assert report.outcome.startswith(beginning)
    assert len(report.runs) == trainings
    assert ("gate" in report.outcome) == (stage == "eval")
    labels = {node.label for node in report.lineage}
    assert labels >= ({"digits", "digit-features"} if stage in ("features", "base") else {"digits32", "zeros32"})
    assert bool(report.samples) == (stage != "features")
    assert report.targets


def _find(nodes: tuple[LineageNode, ...], label: str) -> LineageNode:
    return next(node for node in nodes if node.label == label)


def test_a_dataset_artifact_stands_in_the_lineage(
    made: Made, spoilt: Made, run_job: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.cli import main

    monkeypatch.setenv("TLGAN_STORE", f"file://{spoilt.store}")
    assert main(["-q", "data", "pack", "digits", "few-digits", "-s", "limit=64", "-s", "resolution=32"]) == 0
    data = {"artifact": "few-digits:latest"}
    run = run_job(spoilt.artifacts, {"kind": "classifier", "name": "few", "data": data, "train": {"kimg": 0.2}})
    report = collect(spoilt.artifacts, run)
    node = _find(report.lineage, "few-digits")
    assert (node.kind, node.note, bool(node.png)) == ("dataset", "64 images", True)
    assert ("data", node.id) in _find(report.lineage, "few").parents
    assert [(one.name, one.count) for one in report.data] == [("few-digits", 64)]
