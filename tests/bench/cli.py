"""CPU time of the command line: `tlgan --help`, and `tlgan validate` of a spec with ten mistakes.

    python -m tests.bench.cli [--quick] [--json]

Seconds are user plus system time of the whole process, interpreter included, as the kernel counted them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.common import Result, Target, options, show, spread
from tests.mistakes import MISTAKES

LIMIT = 0.3


def cpu_seconds(*arguments: str) -> tuple[float, int, str]:
    """CPU seconds, exit code and stderr of one `tlgan`."""
    with tempfile.TemporaryFile("w+") as err:
        program = [str(Path(sys.executable).with_name("tlgan")), *arguments]
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        return used.ru_utime + used.ru_stime, process.returncode, err.read()


def measure(quick: bool = False) -> Result:
    runs = 3 if quick else 10
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(MISTAKES)
        commands = {"tlgan --help": ["--help"], "tlgan validate, ten mistakes": ["validate", str(spec)]}
        for arguments in commands.values():
            cpu_seconds(*arguments)  # compiles modules that nobody has imported yet
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, arguments in commands.items():
                used, code, err = cpu_seconds(*arguments)
                _check(name, code, err)
                seconds[name].append(used)
    rows = [spread(name, values, "CPU s") for name, values in seconds.items()]
    return Result("cli", quick, rows, [Target(row["run"], "<", LIMIT, row["median"]) for row in rows])


def _check(name: str, code: int, err: str) -> None:
    expected = 0 if "help" in name else 2
    if code != expected or (code == 2 and "10 mistakes" not in err):
        raise RuntimeError(f"{name}: exit code {code} and\n{err}")


if __name__ == "__main__":
    given = options(__doc__).parse_args()
    sys.exit(show(measure(given.quick), given.json))
