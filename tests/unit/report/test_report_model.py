"""The report's data: to JSON and back, thinned where it is too much, with axes where none were given."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

import tlgan.report
from tlgan.report import Axis, Curve, Frame, ReportData, RunSection, SweepSection, TrialRow, prepare
from tlgan.report.html import count, duration, moment, number
from tlgan.report.lineage import columns


def test_json_round_trip_with_pictures_and_nan(full: ReportData) -> None:
    text = json.dumps(full.to_json(), allow_nan=False)
    back = ReportData.from_json(json.loads(text))
    assert repr(back) == repr(full)
    assert back.samples == full.samples
    assert math.isnan(back.runs[0].metrics[0].values[1])


def test_from_json_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="tilte"):
        ReportData.from_json({"title": "t", "tilte": "x"})


def test_curve_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match='curve "kid": 2 kimg for 1 values'):
        Curve("kid", (1.0, 2.0), (0.5,))


def test_long_curves_are_thinned_but_keep_ends_spikes_and_gaps() -> None:
    values = [1.0] * 50_000
    values[31_234], values[40_000] = 99.0, math.nan
    thin = prepare.thin_curve(Curve("G", tuple(map(float, range(50_000))), tuple(values)), 800)
    assert len(thin.kimg) <= 2 * 800
    assert (thin.kimg[0], thin.kimg[-1]) == (0.0, 49_999.0)
    assert 99.0 in thin.values
    assert any(math.isnan(v) for v in thin.values)
    assert list(thin.kimg) == sorted(thin.kimg)
    short = Curve("G", (1.0, 2.0), (3.0, 4.0))
    assert prepare.thin_curve(short) is short


def test_heavy_films_are_shortened_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "FRAME_BYTES", 10_000)
    film = tuple(Frame(b"x" * 1000, float(i)) for i in range(33))
    small = tuple(Frame(b"x" * 10, float(i)) for i in range(5))
    report = prepare.prepare(ReportData("t", runs=(RunSection("a", frames=film), RunSection("b", frames=small))))
    kimg = [frame.kimg for frame in report.runs[0].frames]
    assert kimg == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0]
    assert report.runs[1].frames == small


def test_two_frames_are_kept_however_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "FRAME_BYTES", 1)
    film = tuple(Frame(b"x" * 1000, float(i)) for i in range(7))
    report = prepare.prepare(ReportData("t", runs=(RunSection("a", frames=film),)))
    assert [frame.kimg for frame in report.runs[0].frames] == [0.0, 6.0]


def _axes(*params: dict[str, object], axes: tuple[Axis, ...] | None = None) -> tuple[Axis, ...]:
    rows = tuple(TrialRow(str(i), objective=1.0, params=p) for i, p in enumerate(params))
    return prepare.axes_of(SweepSection("s", "kid", rows=rows, axes=axes))


def test_axes_are_found_from_the_values() -> None:
    found = _axes(
        {"lr": 1e-4, "n": 1, "m": "a", "mixed": 1}, {"lr": 1e-2, "n": 300, "m": "b", "mixed": "x", "flag": True}
    )
    assert found == (
        Axis("lr", "log"),
        Axis("n", "linear"),
        Axis("m", "category", ("a", "b")),
        Axis("mixed", "category", (1, "x")),
        Axis("flag", "category", (True,)),
    )


def test_impossible_axes_are_mended() -> None:
    given = (Axis("a", "log"), Axis("b", "linear"), Axis("c", "category", ("z", "y")), Axis("d"))
    assert _axes({"a": 0.0, "b": "word", "c": "x"}, axes=given) == (
        Axis("a", "linear"),
        Axis("b", "category", ("word",)),
        Axis("c", "category", ("z", "y", "x")),
        Axis("d"),
    )


def test_columns_stand_right_of_all_parents_and_sources_beside_their_first_child() -> None:
    edges = [
        ("d0", "data", "c"),
        ("d0", "data", "g0"),
        ("c", "features", "g0"),
        ("g0", "init", "g1"),
        ("d1", "data", "g1"),
    ]
    assert columns(["d0", "c", "g0", "d1", "g1"], edges) == {"d0": 0, "c": 1, "g0": 2, "d1": 2, "g1": 3}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((0.021043, "0.02104"), (2e-4, "2e-4"), (5.2291e-5, "5.229e-5"), (64000, "64,000"), (0.0, "0"), (1e9, "1e9")),
        *((12345.6, "12,346"), (9.871, "9.871"), (math.nan, "NaN"), (-math.inf, "−∞"), (None, "–"), (True, "yes")),
        *(("word", "word"), (1234.5, "1,234"), (-0.00001, "-1e-5")),
    ],
)
def test_numbers_in_words(value: object, words: str) -> None:
    assert number(value) == words


def test_times_and_counts_in_words() -> None:
    assert [duration(s) for s in (8.24, 185, 8040, None, math.nan)] == ["8.2 s", "3 min 05 s", "2 h 14 min", None, None]
    assert moment("2025-11-21T05:24:10+02:00") == "21 November 2025, 03:24 UTC"
    assert moment("2025-11-21T03:24:10") == "21 November 2025, 03:24 UTC"
    assert moment("soon") == "soon"
    assert (count(1, "image"), count(1797, "image")) == ("1 image", "1,797 images")


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="checks the page's scripts with node, which is not installed")
def test_scripts_compute_what_they_draw(tmp_path: Path) -> None:
    folder = Path(tlgan.report.__file__).parent
    scripts = "".join((folder / name).read_text() for name in ("base.js", "chart.js", "parallel.js"))
    stub = 'const document = { getElementById: () => ({ textContent: "{}" }) };\n'
    probe = """
    console.log(JSON.stringify({
      linear: linearTicks(0, 160, 4), log: logTicks(5e-5, 1e-3), one: makeScale(3, 3, 0, 100)(3),
      words: [2e-4, 0.021043, 64000, NaN, 0].map(words),
      smooth: smoothed([0, 1, 2, 3], [5, 5, NaN, 5]).map((v) => +v.toFixed(9)),
      number: [toNumber("NaN"), toNumber("Infinity"), toNumber(null), toNumber(1)].map(Number.isFinite),
    }));"""
    path = tmp_path / "probe.js"
    path.write_text(stub + scripts + probe)
    done = subprocess.run([str(NODE), str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {
        "linear": [0, 50, 100, 150],
        "log": [5e-5, 1e-4, 2e-4, 5e-4, 1e-3],
        "one": 50,
        "words": ["2e-4", "0.02104", "64,000", "NaN", "0"],
        "smooth": [5, 5, None, 5],
        "number": [False, False, False, True],
    }
