"""`tlgan report`, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import main

from .conftest import Made


@pytest.fixture(autouse=True)
def _store(made: Made, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGAN_STORE", f"file://{made.store}")


def test_it_prints_the_path_of_a_page_named_after_the_run(
    made: Made, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "small"]) == 0
    out = capsys.readouterr().out
    assert out == f"{workdir / made.pipeline}.html\n"
    assert Path(out.strip()).read_text().startswith("<!doctype html>")
    assert [path.name for path in workdir.iterdir()] == [f"{made.pipeline}.html"]


def test_json_and_a_file_in_a_new_folder(made: Made, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "report", made.runs["tune"], "pages/sweep.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"path": f"{workdir}/pages/sweep.html", "bytes": (workdir / "pages/sweep.html").stat().st_size}


def test_an_unknown_run_is_not_found_and_near_names_are_told(capsys: pytest.CaptureFixture[str], workdir: Path) -> None:
    assert main(["report", "smal"]) == 0  # the beginning of an id
    assert main(["report", "smoll", "--json"]) == 3
    error = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert "smoll" in error["message"]
    assert "small" in error["hint"]
    assert not (workdir / "smoll.html").exists()


def test_a_folder_is_refused_and_a_place_that_cannot_be_written_named(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "small", "."]) == 4
    (workdir / "file").write_text("mine")
    assert main(["report", "small", "file/page.html"]) == 5
    assert "file/page.html" in capsys.readouterr().err
    assert (workdir / "file").read_text() == "mine"


def test_the_store_is_only_read(made: Made) -> None:
    def look() -> dict[str, tuple[int, int]]:
        files = (path for path in made.store.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = look()
    assert main(["-q", "report", "small"]) == 0
    assert look() == before


def test_neither_torch_nor_ray_nor_a_cluster_is_needed(workdir: Path) -> None:
    code = (
        "import sys; from jobs.cli import main; code = main(['-q', 'report', 'small', 'page.html']); "
        "print(sorted({'torch', 'ray', 'boto3'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
