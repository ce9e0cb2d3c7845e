"""What a target starts: `python -m jobs.launch STORE RUN SUBMISSION`. Unpacks the run's code and watches over its driver.

The driver is a process of its own: when it is killed, by the system for its memory say, somebody is left to write down why
the run ended. Everything it prints goes to the store, in segments, and to this process's output. Imports neither torch nor ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from cluster.code import VARIABLE, fetch_code
from cluster.logs import ENDED, LogWriter
from cluster.runs import FINAL, RunRecord, Runs
from cluster.store import ArtifactStore, open_store
from cluster.store.base import scrub
from tlgan.data import cache_root
from tlgan.errors import NotFound, TlganError
from tlgan.manifest import now_utc

LAST_WORDS = 20  # lines of the driver that are looked through for a reason
SILENCE_SECONDS = 5.0  # after the driver's end, for lines that are still on their way


def main(store: str, run_id: str, submission: str) -> int:
    """Runs the driver of a submission to its end and returns its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    artifacts = ArtifactStore(open_store(store))
    runs = Runs(artifacts.store)
    told = runs.get_json(run_id, f"submissions/{submission}.json")
    if told is None:
        raise NotFound(f"there is no submission {submission} of run {run_id} in {artifacts.url}")
    with LogWriter(artifacts.store, run_id, "driver") as writer:
        try:
            folder = fetch_code(artifacts, f"{told['code']['ref'].partition('@')[0]}@{told['code']['digest']}")
        except TlganError as error:
            writer.line(f"the code of the run can't be used: {error.message}")
            close(runs, run_id, submission, f"the code of the run can't be used: {error.message}")
            return error.exit_code
        code, last = _watch([sys.executable, "-P", "-m", "jobs.drive", store, run_id, submission], str(folder), writer)
        writer.line(f"{ENDED}, exit code {code}" if code >= 0 else f"{ENDED}, killed by {signal.Signals(-code).name}")
    close(runs, run_id, submission, reason_of(code, last))
    return code if code >= 0 else 128 - code


def _watch(command: list[str], code: str, writer: LogWriter) -> tuple[int, list[str]]:
    """Exit code and last lines of the driver. Signals that ask this process to end are handed on to it."""
    cache = str(cache_root().absolute())
    env = {**os.environ, "PYTHONPATH": code, VARIABLE: code, "PYTHONUNBUFFERED": "1", "TLGAN_CACHE": cache}
    child = subprocess.Popen(  # Ray's workers look for modules in the folder of the driver first
        command, cwd=code, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda given, frame: child.send_signal(signal.SIGTERM))
    last: deque[str] = deque(maxlen=LAST_WORDS)

    def read() -> None:
        assert child.stdout is not None
        for data in child.stdout:
            text = data.decode(errors="replace").rstrip("\n")
            last.append(text)
            writer.line(text)
            with contextlib.suppress(OSError):  # a full disk here does not end the run
                print(text, flush=True)

    reader = threading.Thread(target=read, daemon=True, name="tlgan-driver-output")
    reader.start()
    code_of_end = child.wait()
    reader.join(SILENCE_SECONDS)  # a process that the driver left behind may hold the pipe open
    return code_of_end, list(last)


def reason_of(code: int, last: list[str]) -> str:
    """Why a driver ended that could not say so itself."""
    if code < 0:
        name = signal.Signals(-code).name
        more = ": the system may have been out of memory" if name == "SIGKILL" else ""
        return f"the driver was killed by {name}{more}"
    said = next((line.strip() for line in reversed(last) if line.strip()), "it said nothing")
    return f"the driver ended with exit code {code} and left no verdict: {scrub(said)}"[:1000]


def close(runs: Runs, run_id: str, submission: str, reason: str) -> None:
    """Writes the end down, unless the driver or a later submission has its own word in the record."""

    def ended(found: RunRecord) -> dict[str, Any]:
        if found.state in FINAL or (found.submission or {}).get("id") != submission:
            return {}
        failure = {"code": "internal", "exit_code": 1, "hint": f"tlgan logs {run_id}"}
        return {"state": "failed", "reason": reason, "finished": now_utc(), "failure": failure}

    runs.revise(run_id, ended)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except TlganError as error:  # nobody reads a record that can't be written: the target's own log must do
        print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
