"""A search by Ray Tune: each trial is one training in an actor of its own, started once and used again.

Which points are tried is decided here, from the search's seed alone; Tune runs them, side by side, and its ASHA scheduler
(Li et al. 2020) stops the hopeless. A trial that fails is reported and the others go on.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from cluster.code import root
from cluster.job import SweepJob
from cluster.logs import captured
from cluster.ray_session import RaySession
from cluster.runs import Runs
from cluster.space import Space
from cluster.stopping import stop_signal
from cluster.task import GanTask, TaskHooks, run_gan
from cluster.trainer import cause_of, error_name
from cluster.trial import Trial, ended
from cluster.waiting import away_from_main
from tlgan.errors import RunStopped
from tlgan.recipe import canonical_json

Params = dict[str, Any]
DRAWS = 50  # for each point, before the space counts as used up
__all__ = ["Trial", "rungs", "sample", "search"]


def sample(
    space: Mapping[str, Space], algo: str, trials: int, seed: int, base: Mapping[str, Any] | None = None
) -> list[Params]:
    """The points to try, no two alike: `trials` draws, fewer where the space has fewer points, or a walk over the grid
    cut off after `trials` points. A spec `base` whose own values the space has is the first of the draws.

    Paths are taken in alphabetical order: a spec gives the same points however its keys were sorted on the way.
    """
    if algo == "grid":
        axes = [[(path, value) for value in one.grid() or []] for path, one in sorted(space.items())]
        return [dict(point) for point in itertools.islice(itertools.product(*axes), trials)]
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5EA2C4]))
    points: dict[bytes, Params] = {}
    if base is not None and (own := _own_point(space, base)) is not None:
        points[canonical_json(own)] = own
    for _ in range(trials * DRAWS):
        if len(points) >= trials:
            break
        point = {path: _draw(one, rng) for path, one in sorted(space.items())}
        points.setdefault(canonical_json(point), point)
    return list(points.values())


def _own_point(space: Mapping[str, Space], base: Mapping[str, Any]) -> Params | None:
    """The values that `base` has at the paths of the space; None when one of them could not be drawn."""
    point: Params = {}
    for path, one in sorted(space.items()):
        value: Any = base
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not one.has(value):
            return None
        point[path] = value
    return point


def _draw(space: Space, rng: np.random.Generator) -> Any:
    low, high = space.values[0], space.values[-1]
    if space.kind == "int":
        return int(rng.integers(low, high, endpoint=True))
    if space.kind == "uniform":
        return float(rng.uniform(low, high))
    if space.kind == "log_uniform":
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    return space.values[int(rng.integers(len(space.values)))]


def budget(task: GanTask) -> int:
    """Images a trial trains for when nothing stops it; `train.kimg` may be searched too."""
    return round(float(task.recipe["train"]["kimg"]) * 1000)


def rungs(job: SweepJob, total: int) -> tuple[int, ...]:
    """Images after which a trial of `total` images is measured: ASHA's rungs, at grace, grace * eta, ... below that."""
    if job.early_stop.scheduler == "none":
        return ()
    step, marks = _grace(job), []
    while step < total:
        marks.append(step)
        step *= job.early_stop.eta
    return tuple(marks)


def _grace(job: SweepJob) -> int:
    return max(1, round(1000 * (job.early_stop.grace_kimg or job.base.train.kimg / 8)))


def search(
    session: RaySession, job: SweepJob, trials: list[Trial], tasks: dict[str, GanTask], tell: Callable[[Trial], None]
) -> list[Trial]:
    """Runs the trials that have a task; returns all of them with what came out. `tell` hears every change."""
    session.connect()
    from ray import tune

    from cluster.tune_watch import Watcher

    board = {trial.trial: trial for trial in trials}
    open_trials = [trial.trial for trial in trials if trial.trial in tasks]
    totals = {name: budget(task) for name, task in tasks.items()}
    device = None if job.base.resources.gpus_per_worker else "cpu"
    plain = {name: {**asdict(task), "device": device} for name, task in tasks.items()}
    resources = {"cpu": job.base.resources.cpus_per_worker, "gpu": job.base.resources.gpus_per_worker}
    with tempfile.TemporaryDirectory(prefix="tlgan-tune-") as bookkeeping:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_run_trial, tasks=plain, metric=job.objective.metric), resources),
            param_space={"trial": tune.grid_search(open_trials)},
            tune_config=tune.TuneConfig(
                metric=job.objective.metric,
                mode=job.objective.direction,
                scheduler=_scheduler(job, max(totals.values())),
                max_concurrent_trials=job.search.parallel,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep", storage_path=bookkeeping, verbose=0, callbacks=[Watcher(board, job, totals, tell)]
            ),
        )
        results = away_from_main(tuner.fit, "ray-tune")
    runs = Runs(next(iter(tasks.values())).open_store())
    for result in (results[i] for i in range(len(results))):
        name = result.config["trial"] if result.config else None
        if name is not None:
            board[name] = _verdict(board[name], result, runs, tasks[name])
            tell(board[name])
    return [board[trial.trial] for trial in trials]


def _scheduler(job: SweepJob, total: int) -> Any:
    """`total`: images of the longest trial."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if job.early_stop.scheduler == "none" or _grace(job) >= total:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    return ASHAScheduler(
        time_attr="nimg", max_t=2 * total, grace_period=_grace(job), reduction_factor=job.early_stop.eta
    )


def _run_trial(config: dict[str, Any], tasks: dict[str, dict[str, Any]], metric: str) -> None:
    """One trial, in a Tune actor. What must survive is in the store before `report`, which may be the trial's last act."""
    from ray import tune

    task = GanTask(**tasks[config["trial"]])
    store = task.open_store()
    store.delete(f"runs/{task.run}/{error_name(task)}")
    asked = stop_signal(store, task.run)

    def measured(nimg: int, values: dict[str, float]) -> None:
        if not math.isfinite(values[metric]):
            raise ValueError(f"{metric} is {values[metric]} at {nimg / 1000:g} kimg")
        tune.report({"nimg": nimg, **values})

    try:
        about = f"trial {config['trial']} on {socket.gethostname()} (process {os.getpid()}), code in {root()}"
        with captured(store, task.run, "rank-0", about):
            if asked() or not run_gan(task, TaskHooks(measured=measured, should_stop=asked)):
                raise RunStopped("stopped by a person")
    except Exception as error:
        Runs(store).put_json(task.run, error_name(task), {"message": str(error) or type(error).__name__})
        raise


def _verdict(trial: Trial, result: Any, runs: Runs, task: GanTask) -> Trial:
    if result.error is not None:
        recorded = runs.get_json(task.run, error_name(task))
        return replace(
            trial, state="failed", reason=recorded["message"] if recorded else cause_of(result.error).message
        )
    if trial.objective is None:
        return replace(trial, state="failed", reason="the trial ended without a measurement")
    return replace(trial, **ended(trial.nimg, budget(task)))
