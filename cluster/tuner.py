"""A search by Ray Tune: each turn of a trial is a Tune trial, in actors that are started once and used again.

Tune places the turns, side by side, and watches over them. Which they are and what becomes of them is not Tune's to decide, as
it forgets its schedulers' rungs when it is restored (2.60): the director does, from the ledger in the store, and is Tune's
searcher here. Of what Tune itself writes down nothing is ever read.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from cluster.job import SweepJob
from cluster.patience import patiently
from cluster.ray_session import RaySession
from cluster.runs import Runs
from cluster.search.director import Answer, Director, Turn
from cluster.search.member import Member
from cluster.stopping import stop_key, watch
from cluster.store.base import Store
from cluster.task import GanTask
from cluster.trainer import cause_of, error_name
from cluster.trial import Trial
from cluster.turn import answer_key, take_turn
from cluster.waiting import away_from_main
from tlgan.errors import TlganError

__all__ = ["Conductor", "Trial", "row_of", "search"]
PENDING = "TUNE_MAX_PENDING_TRIALS_PG"


def search(
    session: RaySession,
    job: SweepJob,
    director: Director,
    task_of: Callable[[Turn], GanTask],
    tell: Callable[[Trial], None],
) -> None:
    """Runs the search of `director` to its end, or until a person stops it. `tell` hears every change of a trial."""
    session.connect()
    from ray import tune

    from cluster.tune_watch import Searcher, Watcher

    conductor = Conductor(job, director, task_of, tell, idle_is_ours=session.address is None)
    before = os.environ.get(PENDING)
    os.environ[PENDING] = str(job.search.parallel)  # else Tune starts the workers one after another
    try:
        with tempfile.TemporaryDirectory(prefix="tlgan-tune-") as bookkeeping:
            tuner = tune.Tuner(
                tune.with_resources(take_turn, resources_of(job)),
                tune_config=tune.TuneConfig(
                    search_alg=Searcher(conductor),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: f"trial-{trial.config['trial']}",
                    trial_dirname_creator=lambda trial: f"{trial.config['trial']}-{trial.trial_id}",
                ),
                run_config=tune.RunConfig(
                    name="sweep", storage_path=bookkeeping, verbose=0, callbacks=[Watcher(conductor)]
                ),
            )
            away_from_main(tuner.fit, "ray-tune")
    except Exception as error:
        raise conductor.error or cause_of(error) from error
    finally:
        if before is None:
            os.environ.pop(PENDING, None)
        else:
            os.environ[PENDING] = before


def resources_of(job: SweepJob) -> dict[str, float]:
    """What a trial's actor holds. A trial of several workers is a Ray Train run, whose workers hold what it needs."""
    resources = job.base.resources
    if resources.workers > 1:
        return {"cpu": 0, "memory": 1}  # a byte: Tune refuses to place what takes nothing
    return {"cpu": resources.cpus_per_worker, "gpu": resources.gpus_per_worker}


class Conductor:
    """Between the director, which decides, and Tune, which runs. Called from Tune's loop alone.

    An error in here ends the search; it is kept in `error`. `idle_is_ours`: processors that no trial of the search uses any
    more are given to those that are left, in a Ray of our own; on a cluster they are for others.
    """

    def __init__(
        self,
        job: SweepJob,
        director: Director,
        task_of: Callable[[Turn], GanTask],
        tell: Callable[[Trial], None],
        idle_is_ours: bool = False,
    ) -> None:
        self.job, self.director, self.task_of, self.tell = job, director, task_of, tell
        self.idle_is_ours = idle_is_ours
        self.error: BaseException | None = None
        self.tasks: dict[str, GanTask] = {}
        self.board: dict[str, Trial] = {}
        self.store: Store | None = None
        self.stopping: Callable[[], bool] | None = None
        self.asked = False
        self.ended_by_budget = False
        self.show()

    def next(self) -> dict[str, Any] | None:
        """The configuration of the next Tune trial; None when there is none now."""
        self.pass_on()
        while not self.asked and (turn := self.director.next_turn()):
            try:
                task = self._task(turn)
            except TlganError as error:  # values that are fine one by one, and not together
                self.director.ended(turn.trial, error.message)
                self.show()
                continue
            self.show()
            base = self.job.base
            resources, retry = base.resources.model_dump(), base.retry.model_dump()
            told = {
                "task": asdict(task),
                "resources": resources,
                "retry": retry,
                "waits": bool(self.director.member(turn.trial).marks),
            }
            return {"trial": turn.trial, "turn": json.dumps(told)}
        return None

    @property
    def over(self) -> bool:
        return self.director.over or (self.asked and not self.director.active)

    def begun(self, trial: str) -> None:
        self.director.begun(trial)
        self.show()

    def heard(self, trial: str, result: dict[str, Any]) -> None:
        """Something that a turn has reported."""
        if result.get("asked"):
            if not self.director.exhausted:
                self.asked = True
        elif "nimg" in result:
            self.director.measured(trial, int(result["nimg"]), float(result["value"]))
            self.show()
            self.pass_on()

    def ended(self, trial: str, failed: bool) -> None:
        reason, lost = self._why(trial) if failed else (None, False)
        self.director.ended(trial, reason, lost=lost)
        self.show()
        self.pass_on()

    def pass_on(self) -> None:
        """Brings the director's answers to where the trials look for them."""
        if self._stopped():
            self.asked = True
        for answer in self.director.answers():
            self._put(answer_key(self.tasks[answer.trial], answer.nimg), self._said(answer))
        if self.director.exhausted and not self.ended_by_budget:
            self.ended_by_budget = True
            for trial in self.director.active:
                self._put(answer_key(self.tasks[trial], "over"), {})
            self.show()

    def show(self) -> None:
        """Tells of every trial that is not as it was."""
        for member in self.director.members:
            row = row_of(member, self.director.active.get(member.name))
            if row != self.board.get(member.name):
                self.board[member.name] = row
                self.tell(row)

    def _said(self, answer: Answer) -> dict[str, Any]:
        if answer.turn is None:
            threads = self.threads(answer.beside)
            return {"do": answer.do, **({"threads": threads} if threads else {})}
        return {"do": answer.do, "task": asdict(self._task(answer.turn))}

    def _put(self, key: str, value: dict[str, Any]) -> None:
        patiently(lambda: self._store().put(key, json.dumps(value).encode()), "an answer to a trial")

    def _store(self) -> Store:
        if self.store is None:
            self.store = next(iter(self.tasks.values())).open_store()
        return self.store

    def _task(self, turn: Turn) -> GanTask:
        task = self.task_of(turn)
        device = None if self.job.base.resources.gpus_per_worker else "cpu"
        self.tasks[turn.trial] = replace(task, device=device, threads=self.threads(turn.beside))
        return self.tasks[turn.trial]

    def threads(self, beside: int | None) -> int | None:
        """Of a trial that trains when `beside` trials do; None: as many as its actor was started with."""
        resources, slots = self.job.base.resources, self.job.search.parallel
        if not self.idle_is_ours or beside is None or resources.workers > 1 or resources.gpus_per_worker:
            return None
        return resources.cpus_per_worker * max(1, slots // beside)

    def _stopped(self) -> bool:
        if self.stopping is None and self.tasks:
            task = next(iter(self.tasks.values()))
            self.stopping = watch(self._store(), stop_key(task.run, task.attempt))
        return self.stopping is not None and self.stopping()

    def _why(self, trial: str) -> tuple[str, bool]:
        """Why a turn failed, as it wrote down itself, and whether its worker was lost instead."""
        task = self.tasks[trial]
        runs = Runs(self._store())
        recorded = patiently(lambda: runs.get_json(task.run, error_name(task)), f"trial {trial}")
        return (recorded["message"], False) if recorded else ("its worker died", True)


def row_of(member: Member, activity: str | None) -> Trial:
    """What is shown of a trial. `activity`: what the director says of its turn; None without one."""
    best, last = member.best, member.last
    if member.over:
        state: str = member.state
    elif activity and activity != "given":
        state = "running"
    else:
        state = "paused" if member.measured else "pending"
    params = member.params_at(best.nimg) if best else member.params
    value = best.value if best else None
    return Trial(
        member.name, params, state, last.nimg if last else 0, value, member.reason, best.nimg if best else None
    )
