"""Many short jobs, shared by a few processes of one thread each: on two cores that is faster than two threads a job."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any

_session: Any = None


def pool(processes: int, url: str) -> Any:
    """Processes that run jobs in the store at `url`; 0: this one does."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return multiprocessing.get_context("spawn").Pool(processes, _begin, (url,)) if processes else _Here(url)


def run_all(workers: Any, specs: list[dict[str, Any]], what: str) -> dict[str, dict[str, float]]:
    """Runs the jobs; the metrics of what each published, by the job's name. What the store has is not run again."""
    found: dict[str, dict[str, float]] = {}
    for number, (name, metrics) in enumerate(workers.imap_unordered(_run, specs), 1):
        found[name] = metrics
        if number % 10 == 0 or number == len(specs):
            print(f"  {what}: {number} of {len(specs)}", file=sys.stderr, flush=True)
    return found


def run_here(url: str, specs: list[dict[str, Any]], what: str) -> dict[str, dict[str, float]]:
    """The same in this process, in order."""
    with pool(0, url) as here:
        return run_all(here, specs, what)


def _begin(url: str) -> None:
    """A worker of the pool: one thread, one session."""
    global _session
    import torch

    from cluster.store import ArtifactStore, open_store
    from jobs.session import Session

    torch.set_num_threads(1)
    _session = Session(ArtifactStore(open_store(url)))


def _run(spec: dict[str, Any]) -> tuple[str, dict[str, float]]:
    from cluster.specfile import parse_job
    from jobs.execute import execute

    record = execute(parse_job(spec), _session)
    if record.outputs:
        output = record.outputs[0]
        rows = _session.artifacts.resolve(f"{output['ref'].partition('@')[0]}@{output['digest']}").metrics
    else:
        rows = _session.runs.metrics(record.id)
    return record.name, {row["name"]: float(row["value"]) for row in rows}


class _Here:
    """Jobs one after another in this process, as a pool of one."""

    def __init__(self, url: str) -> None:
        _begin(url)

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        _session.__exit__()

    imap_unordered = staticmethod(map)
