"""What a job survives: each blow on each kind of job, and whether it makes the same as undisturbed, bit for bit.

    python -m tests.bench.chaos [--quick] [--json] [--seed N] [--only pretrain,sweep,pipeline]

Blows: a worker, a node with its disk, the driver, or the cluster's head is killed; the store answers 503 for a minute; the
same command is given twice at once. Each falls at a seeded moment of a run of its own, on a Ray cluster of two nodes on this
machine, over an S3 server (moto). About forty minutes on two quiet cores; --quick: one job, driver and store alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.job import Job, SweepJob
from cluster.minicluster import MiniCluster
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.chaos.blows import DRIVER, HEAD, NODE, TWIN, WORKER, Blow, draw
from jobs.chaos.comparing import compare
from jobs.chaos.harness import Course, Subject, run
from jobs.execute import execute
from jobs.session import Session
from tests.bench.common import Result, Target, options, show
from tests.bench.outage import Outage, outage

STORE = "store"
BLOWS = (WORKER, NODE, DRIVER, HEAD, STORE, TWIN)
OUTAGE_SECONDS = 60.0
CHECKPOINT_KIMG = 4
LOST_AT_MOST = 30.0
"""Seconds that a killed worker may cost besides the time between two checkpoints."""

TRAIN: dict[str, Any] = {
    "data": {"source": "digits"},
    "model": {"width": 12, "latent_dim": 16},
    "train": {"kimg": 120, "batch_size": 32},
    "checkpoint": {"every_kimg": CHECKPOINT_KIMG},
    "resources": {"workers": 2},
}
PRETRAIN: dict[str, Any] = {"kind": "pretrain", "name": "base", **TRAIN, "output": {"artifact": "base"}}
FEATURES: dict[str, Any] = {
    "kind": "classifier",
    "name": "glyph-features",
    "data": {"source": "digits"},
    "model": {"width": 8},
    "train": {"kimg": 4, "batch_size": 64},
}
SWEEP: dict[str, Any] = {
    "kind": "sweep",
    "name": "search",
    "base": {
        "kind": "pretrain",
        "name": "trial",
        **TRAIN,
        "resources": {},
        "train": {"kimg": 30, "batch_size": 32},
        "evaluation": {"samples": 64},
    },
    "space": {"train.lr_g": {"choice": [1e-4, 2e-4, 4e-4]}},
    "search": {"algo": "grid", "trials": 3, "parallel": 2},
    "early_stop": {"scheduler": "none"},
    "output": {"artifact": "found"},
}
HALF = {"train": {"kimg": 60, "batch_size": 32}}
PIPELINE: dict[str, Any] = {
    "kind": "pipeline",
    "name": "both",
    "stages": {
        "base": {"run": PRETRAIN | HALF},
        "tune": {
            "needs": ["base"],
            "run": {
                "kind": "finetune",
                "name": "child",
                "init_from": {"stage": "base"},
                **{key: value for key, value in (TRAIN | HALF).items() if key != "model"},
                "transfer": {"method": "freeze", "freeze_d": 1},
                "output": {"artifact": "child"},
            },
        },
    },
}
JOBS = {"pretrain": PRETRAIN, "sweep": SWEEP, "pipeline": PIPELINE}


@dataclass
class Rig:
    """A bucket behind the proxy for each run of a spec; the harness itself reads past the proxy."""

    folder: Path
    server: Any
    proxy: Outage
    cluster: bool

    def course(self, job: Job, name: str, blows: list[Blow], images: int) -> tuple[ArtifactStore, Course]:
        folder = self.folder / name
        folder.mkdir()
        (folder / "spec.yaml").write_text(json.dumps(job.to_dict()))
        store = ArtifactStore(open_store(f"s3://{self.server.new_bucket()}/store", endpoint=self.server.endpoint))
        if isinstance(job, SweepJob):  # a small stand-in for the embedded extractor, that each would train alike
            execute(parse_job(FEATURES), Session(store))
        environment = {**self.server.environment, "TLGAN_S3_ENDPOINT": self.proxy.endpoint, "AWS_REGION": "us-east-1"}
        with _environment(environment), self._cluster(folder, environment) as cluster:
            subject = Subject(folder / "spec.yaml", store, cluster, folder / "cache")
            return store, run(subject, blows, images, _told, {STORE: self._away})

    def _cluster(self, folder: Path, environment: dict[str, str]) -> Any:
        if not self.cluster:
            return contextlib.nullcontext()
        return MiniCluster(folder, nodes=2, cpus=1, environment=environment)

    def _away(self, subject: Subject, blow: Blow) -> str:
        self.proxy.leave_for(OUTAGE_SECONDS)
        return f"503 for {OUTAGE_SECONDS:.0f} s"


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    saved = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _told(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def rows_of(rig: Rig, name: str, spec: dict[str, Any], kinds: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """A row for each blow: where it fell, what it cost, whether the result is the same."""
    job = parse_job(spec)
    whole, undisturbed = rig.course(job, f"{name}-whole", [], 0)
    pace = undisturbed.seconds / max(undisturbed.images, 1)
    for number, kind in enumerate(kinds):
        blow = Blow(kind, *_moment(seed + number))
        store, course = rig.course(job, f"{name}-{kind}", [blow], undisturbed.images)
        reader = rig.folder / "read"
        verdicts = compare(*(ArtifactStore(one.store, cache_dir=reader) for one in (whole, store)), whole.names())
        fallen = [one for one in course.struck if one.kind == kind]
        yield {
            "job": name,
            "blow": kind,
            "at": round(blow.at, 2),
            "fell": len(fallen),
            "seconds": course.seconds,
            "undisturbed": undisturbed.seconds,
            "there again after s": fallen[0].back_after if fallen else None,
            "allowed s": LOST_AT_MOST + pace * 1000 * CHECKPOINT_KIMG,
            "artifacts": len(verdicts),
            "unlike": sum(not verdict.same for verdict in verdicts),
        }


def _moment(seed: int) -> tuple[float, float]:
    (blow,) = draw([WORKER], 1, seed)
    return blow.at, blow.lot


def measure(quick: bool = False, seed: int = 0, only: list[str] | None = None) -> Result:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds it too
    import servers

    result = Result("chaos", quick, [], [])
    wanted = {name: JOBS[name] for name in (only or JOBS)}
    kinds = list(BLOWS)
    if quick:
        small = {**PRETRAIN, "resources": {}, "train": {"kimg": 16, "batch_size": 32}}
        wanted, kinds = {"pretrain": small}, [DRIVER]
    with tempfile.TemporaryDirectory(prefix="tlgan-cx-", dir="/tmp") as folder:
        base = Path(folder)
        (base / "moto").mkdir()
        moto = servers._moto(base / "moto", tls=False)
        with moto as server, outage(server.endpoint) as proxy, _environment(server.environment):
            rig = Rig(base, server, proxy, cluster=not quick)
            for name, spec in wanted.items():
                for row in rows_of(rig, name, spec, kinds, seed):
                    result.rows.append(row)
                    _told(", ".join(f"{key} {value}" for key, value in row.items()))
    cells = len(wanted) * len(kinds)
    result.targets = [
        Target("chaos: blows that fell", ">=", cells, sum(row["fell"] for row in result.rows)),
        Target("chaos: results that differ", "<=", 0, sum(row["unlike"] for row in result.rows)),
    ]
    for row in result.rows:
        if row["blow"] == WORKER and row["job"] == "pretrain" and row["there again after s"] is not None:
            result.targets.append(
                Target("chaos: seconds lost by a killed worker", "<=", row["allowed s"], row["there again after s"])
            )
    return result


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", help=f"some of {','.join(JOBS)}")
    given = parser.parse_args()
    return show(measure(given.quick, given.seed, given.only.split(",") if given.only else None), given.json)


if __name__ == "__main__":
    sys.exit(main())
