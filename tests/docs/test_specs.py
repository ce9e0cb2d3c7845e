"""Every shipped spec runs: the same files, with less of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from short_specs import ON_RAY, SHORT, SPECS, run_each

from jobs.cli import main


def test_none_is_forgotten() -> None:
    shipped = {spec.name.removesuffix(".yaml") for spec in SPECS.iterdir() if spec.name.endswith(".yaml")}
    assert shipped == {*SHORT, *ON_RAY, "pipeline"}, "pipeline.yaml is run by the quickstart's test"


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_each_spec_runs(shared_ray: Any, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = {"glyphs32", "glyphs32-stylegan2", "glyphs32-r3gan", "digits32", "digits32-ada", "digits32-classes"}
    assert run_each(SHORT, capsys) == {"glyph-features", *trained}
    assert main(["generate", "digits32-classes:latest", "--class", "7", "--out", "sevens.npz", "--n", "3"]) == 0
    assert main(["generate", "digits32-classes:latest", "--class", "x"]) == 2
    assert 'there is no class "x"; expected one of: 0, 1, 2' in capsys.readouterr().err
    assert run_each(ON_RAY, capsys) == {"glyph-features", *trained}
    assert Path("four.png").is_file()
