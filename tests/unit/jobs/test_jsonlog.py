"""Log lines for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging
from cluster.jsonlog import set_up
set_up(run="tiny-1", rank=2)
log = logging.getLogger("tlgan.trainer")
log.warning("can't reach %s", "https://user:hidden@example.org/x")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("lost")
"""


def said(environment: dict[str, str]) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stderr.splitlines()


def test_one_object_a_line_with_who_speaks_and_no_secret() -> None:
    rows = [json.loads(line) for line in said({"TLGAN_LOG_FORMAT": "json"})]
    assert [row["message"] for row in rows] == ["can't reach https://example.org/x", "lost"]
    assert [row["level"] for row in rows] == ["warning", "error"]
    for row in rows:
        assert row.items() >= {"run": "tiny-1", "rank": 2, "logger": "tlgan.trainer"}.items()
        assert row["time"].endswith("Z")
    assert "ZeroDivisionError" in rows[1]["error"]


@pytest.mark.parametrize("value", ["", "text"])
def test_text_is_the_default(value: str) -> None:
    assert said({"TLGAN_LOG_FORMAT": value})[0].startswith("can't reach ")
