"""The shipped specs that search, and what is done with what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from short_specs import ALONE, ON_RAY, run_each


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_each_search_runs(shared_ray: Any, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = {name: ALONE[name] for name in ("classifier", "pretrain")}
    assert run_each(first | ON_RAY, capsys) == {"glyph-features", "glyphs32", "digits32"}
    assert Path("four.png").is_file()
