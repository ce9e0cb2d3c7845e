"""From a sweep's spec to its director: which rule, which source of points, how long a trial is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from cluster.job import SweepJob
from cluster.search import tpe
from cluster.search.budget import Meter
from cluster.search.director import Director, Plan, Suggest
from cluster.search.ledger import Entry, Ledger
from cluster.search.member import Member
from cluster.search.points import Params, draws, grid
from cluster.search.population import Population
from cluster.search.rules import Asha, Hyperband, Median, Never, Rule


def director_of(job: SweepJob, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> Director:
    """The search of `job` as far as `ledger` knows it."""
    plan = Plan(
        rule=rule_of(job, ledger),
        suggest=suggest_of(job),
        total_of=lambda params: total_of(job, params),
        sign=1 if job.objective.direction == "min" else -1,
        parallel=job.search.parallel,
        budget=job.search.budget,
        losses=job.base.retry.crashes,
    )
    return Director(plan, ledger, job.search.trials, Meter(ledger, job.base.resources, clock))


def total_of(job: SweepJob, params: Params) -> int:
    """Images a trial trains for when nothing stops it; `train.kimg` may be searched too."""
    kimg = params.get("train.kimg", (params.get("train") or {}).get("kimg") if "train" in params else None)
    return round(1000 * float(job.base.train.kimg if kimg is None else kimg))


def grace_of(job: SweepJob) -> int:
    return max(1, round(1000 * (job.early_stop.grace_kimg or job.base.train.kimg / 8)))


def rule_of(job: SweepJob, ledger: Iterable[Entry]) -> Rule:
    search, early = job.search, job.early_stop
    if search.algo == "pbt":
        every = max(1, round(1000 * (search.pbt.every_kimg or job.base.train.kimg / 8)))
        return Population(job.space, every, search.pbt.quantile, search.pbt.resample, search.seed)
    if early.scheduler == "asha":
        return Asha(grace_of(job), early.eta)
    if early.scheduler == "median":
        return Median(grace_of(job))
    if early.scheduler == "hyperband":
        return Hyperband(grace_of(job), early.eta, total_of(job, {}), batches(job, ledger))
    return Never()


def batches(job: SweepJob, ledger: Iterable[Entry]) -> list[int]:
    """Trials of the search and of each of its extensions."""
    ends = [0, job.search.trials, *(entry["trials"] for entry in ledger if entry["type"] == "extended")]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def suggest_of(job: SweepJob) -> Suggest:
    search = job.search
    base = job.base.model_dump(mode="json") if search.include_base else None
    source = grid(job.space) if search.algo == "grid" else draws(job.space, search.seed, base)
    known: list[Params] = []

    def nth(number: int) -> Params | None:
        while len(known) <= number:
            if (point := next(source, None)) is None:
                return None
            known.append(point)
        return known[number]

    def suggest(members: Sequence[Member]) -> tuple[Params, str] | Literal["later"] | None:
        number = len(members)
        if search.algo == "tpe" and number >= tpe.startup(search.trials):
            settled = max(0, number - search.parallel + 1)
            if not all(member.over for member in members[:settled]):
                return "later"
            found = tpe.suggest(job.space, members, settled, search.seed, base)
            return None if found is None else (found, f"TPE after the outcomes of {settled} trials")
        point = nth(number)
        why = f"point {number} of the grid" if search.algo == "grid" else f"draw {number} of seed {search.seed}"
        return None if point is None else (point, why)

    return suggest
