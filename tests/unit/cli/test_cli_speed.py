"""Help and validation answer at once: in under 0.3 s of CPU time, without anything heavy."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mistakes import MISTAKES

LIMIT, RUNS = 0.3, 20
PIPELINE_LIMIT = 0.4  # 5 specs in one; what is promised is help and the ten mistakes
HEAVY = ("torch", "ray", "boto3", "pyarrow", "torchvision", "matplotlib", "sklearn", "numpy")
PROGRAM = f"""
import json, os, resource, sys
from jobs.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in sys.modules if name.split(".")[0] in {HEAVY!r}]
os.write(3, json.dumps([code, used.ru_utime + used.ru_stime, heavy]).encode())
"""


def measured(*arguments: str) -> tuple[int, float, list[str], str]:
    """Exit code, the least CPU seconds of a few runs, heavy modules, stderr. Another process on the core's other half makes
    a run dearer, so that is tried until it is under the limit."""
    seconds = [math.inf]
    while min(seconds) >= LIMIT and len(seconds) <= RUNS:
        reader, writer = os.pipe()
        program = [sys.executable, "-c", f"import os; os.dup2({writer}, 3)\n{PROGRAM}", *arguments]
        done = subprocess.run(program, capture_output=True, text=True, pass_fds=[writer], check=True)
        os.close(writer)
        with os.fdopen(reader) as stream:
            code, used, heavy = json.load(stream)
        seconds.append(used)
    return code, min(seconds), heavy, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "--help"], ["--version"]])
def test_help(arguments: list[str]) -> None:
    code, seconds, heavy, _ = measured(*arguments)
    assert (code, heavy) == (0, [])
    assert seconds < LIMIT


def test_ten_mistakes(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(MISTAKES)
    code, seconds, heavy, err = measured("validate", str(tmp_path / "spec.yaml"))
    assert (code, heavy) == (2, [])
    assert err.splitlines()[-1] == "10 mistakes"
    assert len(err.splitlines()) == 11
    assert seconds < LIMIT


def test_a_whole_pipeline() -> None:
    path = Path(__file__).parents[3] / "jobs" / "specs" / "pipeline.yaml"
    code, seconds, heavy, _ = measured("validate", str(path))
    assert (code, heavy) == (0, [])
    assert seconds < PIPELINE_LIMIT
