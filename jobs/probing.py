"""A probe on the machine where the run would be: `python -m jobs.probing STORE RUN PROBE`, started by a target like a driver.

runs/<run>/probes/<id>.json, <id>.done.json     what is tried and with which code; its figures, or why there are none
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.code import VARIABLE, fetch_code, push_code, root
from cluster.runs import Runs
from cluster.sections import ResourcesSpec
from cluster.store import ArtifactStore, open_store
from cluster.store.base import scrub
from cluster.targets.base import Target, Ticket
from tlgan.errors import RunFailed, RunTimeout, TlganError

PROBE_SECONDS = 300.0
LAST_WORD_SECONDS = 5.0
POLL_SECONDS = 0.5
HINT = "--no-probe plans without it"


def probe_on(
    target: Target, ticket: Ticket, task: dict[str, Any], resources: ResourcesSpec, artifacts: ArtifactStore
) -> dict[str, Any]:
    """The figures of `jobs.probe` for `task`, taken by a process that `target` starts with the resources of one worker."""
    runs, probe = Runs(artifacts.store), f"probe-{uuid.uuid4().hex[:8]}"
    code = push_code(artifacts)
    runs.put_json(ticket.run, f"probes/{probe}.json", {"task": task, "code": code.ref})
    handle = target.start(replace(ticket, submission=probe, module="jobs.probing", driver=resources, demands=[]))
    deadline, ended_since = time.monotonic() + PROBE_SECONDS, None
    while (found := runs.get_json(ticket.run, f"probes/{probe}.done.json")) is None:
        now = time.monotonic()
        said = target.progress(handle)
        ended_since = (ended_since or now) if said.state == "ended" else None
        if ended_since is not None and now - ended_since > LAST_WORD_SECONDS:
            raise RunFailed(f"the probe on {target.name} ended without figures: {said.message}", hint=HINT)
        if now > deadline:
            target.end(handle)
            raise RunTimeout(
                f"the probe on {target.name} gave no figures in {PROBE_SECONDS:g} s: {said.message}", hint=HINT
            )
        time.sleep(POLL_SECONDS)
    if "error" in found:
        raise RunFailed(f"the probe on {target.name} failed: {found['error']}", hint=HINT)
    return dict(found)


def main(store: str, run_id: str, probe: str) -> int:
    """Takes the figures and leaves them in the store."""
    artifacts = ArtifactStore(open_store(store))
    runs = Runs(artifacts.store)
    told = runs.get_json(run_id, f"probes/{probe}.json") or {}
    try:
        figures = run_probe(told["task"], fetch_code(artifacts, told["code"]))
    except TlganError as error:
        figures = {"error": error.message}
    runs.put_json(run_id, f"probes/{probe}.done.json", figures)
    return 1 if "error" in figures else 0


def run_probe(task: dict[str, Any], code: Path | None = None) -> dict[str, Any]:
    """Runs `jobs.probe` in a process of its own, from the packages in `code` (default: this process's)."""
    folder = str(code or root())
    path = folder if code else os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    own = {VARIABLE: folder} if code else {}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jobs.probe"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            env={**os.environ, **own, "PYTHONPATH": path},
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunTimeout(f"twenty steps took more than {PROBE_SECONDS:g} s", hint=HINT) from None
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        raise RunFailed(f"twenty steps could not be taken: {scrub(last)}", hint=HINT)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
