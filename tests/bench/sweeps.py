"""Sweeps: do killed ones decide as those that ran through, what does a trial cost beside its training, do trials share a machine.

    python -m tests.bench.sweeps [--quick] [--json] [--only kills,overhead,packing] [--sweeps 20] [--first 0]

kills      sweeps of the command line on one Ray, the driver killed (SIGKILL) at random moments and started again until it is done;
           their ledgers are held against those of sweeps that ran through
overhead   wall time of a sweep of many trials less that of one of few, a trial; less what the same training takes by itself
packing    16 short trials in one sweep on two cores against 16 processes one after another
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.common import Result, Target, options, show

ROOT = Path(__file__).parents[2]
PARTS = ("kills", "overhead", "packing")
ASHA = {"scheduler": "asha", "grace_kimg": 0.2, "eta": 2}
SEARCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"algo": "random", "trials": 8}, ASHA),
    ({"algo": "tpe", "trials": 8}, {"scheduler": "median", "grace_kimg": 0.2}),
    ({"algo": "random", "trials": 8}, {"scheduler": "hyperband", "grace_kimg": 0.2, "eta": 2}),
    ({"algo": "pbt", "trials": 4, "pbt": {"every_kimg": 0.2}}, {"scheduler": "none"}),
]
"""What is killed, in turn."""


def spec(search: dict[str, Any], early: dict[str, Any], *, kimg: float = 0.8, seed: int = 0) -> dict[str, Any]:
    """A sweep of tiny trainings on digits."""
    return {
        "kind": "sweep",
        "name": "bench",
        "base": {
            "kind": "pretrain",
            "name": "base",
            "data": {"source": "digits"},
            "model": {"width": 4, "latent_dim": 8},
            "train": {"kimg": kimg, "batch_size": 16},
            "grid": {"every_kimg": 1000},
            "evaluation": {"samples": 32, "extractor": "classifier:features:latest"},
        },
        "space": {"train.lr_g": {"log_uniform": [1e-4, 3e-3]}, "train.lr_d": {"log_uniform": [1e-4, 3e-3]}},
        "search": {"parallel": 2, "seed": seed, **search},
        "early_stop": early,
    }


class Bench:
    """A store with a small extractor, a folder for specs, and the command line."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        own = {"OMP_NUM_THREADS": "1", "TLGAN_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        self.environment = {**os.environ, **own, **environment}

    def features(self, store: str) -> None:
        classifier = {"kind": "classifier", "name": "features", "data": {"source": "digits"}, "model": {"width": 8}}
        self.run({**classifier, "train": {"kimg": 2, "batch_size": 64}}, store)

    def start(self, job: dict[str, Any], store: str) -> subprocess.Popen[bytes]:
        import yaml

        file = self.folder / f"{job['name']}-{store}.yaml"
        file.write_text(yaml.safe_dump(job))
        command = [sys.executable, "-m", "jobs.cli", "run", str(file), "--store", str(self.folder / store)]
        with (self.folder / f"{store}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)

    def run(self, job: dict[str, Any], store: str) -> float:
        """Wall seconds. Raises with what was said when it fails."""
        begun = time.monotonic()
        if self.start(job, store).wait():
            raise RuntimeError((self.folder / f"{store}.log").read_text()[-4000:])
        return time.monotonic() - begun

    def decided(self, store: str) -> list[dict[str, Any]]:
        """The decisions of the store's one sweep."""
        from cluster.runs import Runs
        from cluster.search.ledger import Ledger, decisions
        from cluster.store import open_store

        opened = open_store(str(self.folder / store))
        run = next(record for record in Runs(opened).list() if record.kind == "sweep")
        return decisions(Ledger(opened, run.id))


@contextmanager
def shared_ray() -> Iterator[dict[str, str]]:
    """One Ray for all drivers; yields what they need to find it."""
    from cluster.ray_session import RaySession

    with RaySession() as session:
        ray = session.connect()
        yield {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


def killed(bench: Bench, job: dict[str, Any], store: str, rng: random.Random, longest: float) -> int:
    """Runs a sweep to its end through any number of kills. Returns how many there were."""
    kills = 0
    while True:
        process = bench.start(job, store)
        try:
            code = process.wait(timeout=rng.uniform(0.25, 0.8) * longest)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, longest = kills + 1, 1.25 * longest  # so that it ends some day
            continue
        if code:
            raise RuntimeError((bench.folder / f"{store}.log").read_text()[-4000:])
        return kills


def kills(sweeps: int, say: Callable[[str], None], first: int = 0) -> tuple[dict[str, Any], Target]:
    """As many sweeps, each with a seed of its own, from `first` on; each is compared with one that ran through."""
    same = total = 0
    with tempfile.TemporaryDirectory(prefix="tlgan-bench-") as folder, shared_ray() as address:
        bench = Bench(Path(folder), address)
        bench.features("features")
        for number in range(first, first + sweeps):
            search, early = SEARCHES[number % len(SEARCHES)]
            job, rng = spec(search, early, seed=number), random.Random(number)
            stores = f"through{number}", f"killed{number}"
            for store in stores:
                shutil.copytree(bench.folder / "features", bench.folder / store)
            seconds = bench.run(job, stores[0])
            died = killed(bench, job, stores[1], rng, seconds)
            equal = bench.decided(stores[0]) == bench.decided(stores[1])
            same, total = same + equal, total + died
            say(
                f"  sweep {number}: {search['algo']}, {early['scheduler']}: {died} kills, {'same' if equal else 'OTHER'}"
            )
    row = {"part": "kills", "what": f"{sweeps} sweeps, {total} kills", "value": float(same), "unit": "decide the same"}
    return row, Target("killed sweeps that decide as those that ran through", ">=", sweeps, same)


def overhead(few: int, many: int, kimg: float) -> tuple[list[dict[str, Any]], Target]:
    with tempfile.TemporaryDirectory(prefix="tlgan-bench-") as folder:
        bench, walls = Bench(Path(folder), {}), {}
        for trials in (few, many):
            store = f"store{trials}"
            bench.features(store)
            job = spec({"trials": trials, "parallel": 1}, {"scheduler": "none"}, kimg=kimg)
            job["base"]["checkpoint"] = {"every_kimg": kimg}  # measured once, at the end
            walls[trials] = bench.run(job, store)
        training = alone(bench, f"store{many}", many - few)
    each = (walls[many] - walls[few]) / (many - few)
    rows = [
        {"part": "overhead", "what": f"one more trial, {many - few} of them", "value": each, "unit": "s"},
        {"part": "overhead", "what": "the same training by itself", "value": training, "unit": "s"},
    ]
    return rows, Target("overhead of one more trial in seconds", "<", 1.0, max(each - training, 1e-3))


def alone(bench: Bench, store: str, count: int) -> float:
    """Seconds that a trial's training takes in a process that has done it before, with all that belongs to it: a median."""
    code = "import sys; from tests.bench.sweeps import time_alone; time_alone(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(bench.folder / store), str(count)]
    done = subprocess.run(command, env=bench.environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def time_alone(store: str, count: int) -> None:
    """Prints the median seconds of the store's last trial, trained `count` times after a first one."""
    import statistics
    from dataclasses import replace

    from cluster.runs import Runs
    from cluster.specfile import parse_job
    from cluster.store import ArtifactStore, open_store
    from cluster.task import run_gan
    from jobs.kinds.gan import task_of
    from jobs.kinds.sweep import prepare
    from jobs.resuming import pinned_by
    from jobs.session import Session

    opened = open_store(store)
    record = next(r for r in Runs(opened).list() if r.kind == "sweep")
    job = pinned_by(record, parse_job(record.spec))
    seconds = []
    with Session(ArtifactStore(opened)) as session:
        plan = prepare(job, session).payload["source"].plan_of(Runs(opened).get(record.id).facts["params"])
        for number in range(count + 1):
            task = task_of(plan, session, record, f"alone-{number}", checkpoints_to_store=False, threads=1)
            task = replace(task, objective=("kid", "min"), device="cpu", workdir=f"{task.workdir}-{number}")
            begun = time.monotonic()
            assert run_gan(task)
            seconds.append(time.monotonic() - begun)
    print(statistics.median(seconds[1:]))


def packing(trials: int, kimg: float) -> tuple[list[dict[str, Any]], Target]:
    with tempfile.TemporaryDirectory(prefix="tlgan-bench-") as folder:
        bench = Bench(Path(folder), {})
        bench.features("store")
        job = spec({"trials": trials}, {"scheduler": "none"}, kimg=kimg)
        job["base"]["checkpoint"] = {"every_kimg": kimg}
        together = bench.run(job, "store")
        one = {**job["base"], "metrics": ["kid"], "output": {"artifact": "alone"}}
        apart = sum(
            bench.run({**one, "name": f"one{n}", "train": {**one["train"], "seed": n + 1}}, "store")
            for n in range(trials)
        )
    rows = [
        {"part": "packing", "what": f"{trials} trials in one sweep, two at a time", "value": together, "unit": "s"},
        {"part": "packing", "what": f"{trials} processes one after another", "value": apart, "unit": "s"},
    ]
    return rows, Target("time of the sweep, of the processes' time", "<=", 0.6, together / apart)


def measure(quick: bool, only: tuple[str, ...] = PARTS, sweeps: int = 20, first: int = 0) -> Result:
    rows: list[dict[str, Any]] = []
    targets: list[Target] = []

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if "kills" in only:
        row, target = kills(1 if quick else sweeps, say, first)
        rows.append(row)
        targets.append(target)
    if "overhead" in only:
        more, target = overhead(*((1, 3, 0.3) if quick else (2, 14, 0.8)))
        rows += more
        targets.append(target)
    if "packing" in only:
        more, target = packing(*((2, 0.3) if quick else (16, 1.6)))
        rows += more
        targets.append(target)
    return Result("sweeps", quick, rows, targets)


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--sweeps", type=int, default=20, help="how many are killed")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them")
    given = parser.parse_args()
    return show(measure(given.quick, tuple(given.only.split(",")), given.sweeps, given.first), given.json)


if __name__ == "__main__":
    sys.exit(main())
