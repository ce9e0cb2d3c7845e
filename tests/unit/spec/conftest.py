"""A folder of valid specs, and their mistakes once broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from spec_texts import SPECS

from cluster.specfile import check_files


@pytest.fixture
def specs(workdir: Path) -> Path:
    """The current directory, with the specs above."""
    for name, text in SPECS.items():
        (workdir / name).write_text(text)
    return workdir


@pytest.fixture
def mistakes(specs: Path) -> Callable[..., list[str]]:
    """`mistakes(text, *overrides)`: the problems of a spec with this text, as printed."""

    def check(text: str, *overrides: str) -> list[str]:
        (specs / "spec.yaml").write_text(text)
        return [str(p) for p in check_files(["spec.yaml"], overrides)[1]]

    return check
