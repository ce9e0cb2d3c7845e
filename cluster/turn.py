"""One turn of a trial: what a Tune actor does with it, and how it talks with the driver while it trains.

Measurements go to the driver through Tune. Answers come back through the store, so that a rank of a nested Ray Train run gets
them as a plain trial does:

runs/<run>/trials/<n>/answers/<attempt>-<nimg>.json     {"do": "go" | "stop" | "park" | "turn", "task": ..., "threads": ...}
runs/<run>/trials/<n>/answers/<attempt>-over.json       the budget is used up: end at the next tick
runs/<run>/trials/<n>/told/<attempt>-<nimg>.json        ranks of a nested run: a measurement, for the actor to pass on
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from cluster.code import root
from cluster.logs import captured
from cluster.ray_session import RaySession
from cluster.runs import Runs
from cluster.sections import ResourcesSpec, RetrySpec
from cluster.stopping import stop_key, watch
from cluster.store.base import Store
from cluster.task import GanTask, TaskHooks, run_gan
from cluster.trainer import error_name, train_on_ray
from cluster.waiting import start
from cluster.worker import Leaving, take_part
from tlgan.errors import NotFound, RunFailed

Answer = dict[str, Any]
FIRST_WAIT, LONGEST_WAIT = 0.02, 0.5  # seconds between two looks for an answer
MOST_MINUTES = 100_000
RANK_PATIENCE = 60.0  # after which a nested run ends and frees its workers; the other ranks' collective would time out


def answer_key(task: GanTask, nimg: int | str) -> str:
    return f"runs/{task.run}/answers/{task.attempt}-{nimg}.json"


def told_prefix(task: GanTask) -> str:
    return f"runs/{task.run}/told/{task.attempt}-"


def take_turn(config: dict[str, Any]) -> None:
    """In a Tune actor. What must survive is in the store before anything is reported."""
    from ray import tune

    told = json.loads(config["turn"])
    task, resources = GanTask(**told["task"]), ResourcesSpec.model_validate(told["resources"])
    store = task.open_store()
    retry = RetrySpec.model_validate({**told["retry"], "wait_minutes": MOST_MINUTES})  # other trials have the room

    def work(line: Line) -> bool:
        return _on_workers(line, resources, retry) if resources.workers > 1 else _here(line)

    following: GanTask | None = task
    folders = set()
    try:
        while following is not None:
            folders.add(following.workdir)
            line = Line(
                store, following, told["waits"], lambda nimg, value: tune.report({"nimg": nimg, "value": value})
            )
            if line.asked() or not (work(line) or line.answer):
                tune.report({"asked": True})
                return
            following = line.following()
    except Exception as error:
        Runs(store).put_json(task.run, error_name(task), {"message": str(error) or type(error).__name__})
        raise
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


class Line:
    """Between a training and the driver. `waits`: whether the driver decides after each measurement below the end."""

    def __init__(
        self, store: Store, task: GanTask, waits: bool, tell: Callable[[int, float], None], patience: float = math.inf
    ) -> None:
        self.store, self.task, self.waits, self.tell, self.patience = store, task, waits, tell, patience
        self.total = round(float(task.recipe["train"]["kimg"]) * 1000)
        self.answer: Answer | None = None
        self.failure: RunFailed | None = None
        self._stopped = watch(store, stop_key(task.run, task.attempt))
        self.over = watch(store, answer_key(task, "over"))

    def asked(self) -> bool:
        """Whether the training should end at the next tick: a person wants it, or the budget is used up."""
        return self._stopped() or self.over()

    def measured(self, nimg: int, values: dict[str, float]) -> bool:
        """Tells the driver and waits for its answer; True: the training ends here."""
        assert self.task.objective is not None
        metric = self.task.objective[0]
        if not math.isfinite(values[metric]):
            self.failure = RunFailed(f"{metric} is {values[metric]} at {nimg / 1000:g} kimg")
            return True
        self.tell(nimg, values[metric])
        if nimg >= self.total or not self.waits:
            return False
        self.answer = self.wait(nimg)
        if self.answer and "threads" in self.answer:
            import torch

            torch.set_num_threads(self.answer["threads"])
        return self.answer is None or self.answer["do"] != "go"

    def wait(self, nimg: int) -> Answer | None:
        """The driver's answer. None when nobody wants the training to go on, or when `patience` is over."""
        begun, pause = time.monotonic(), FIRST_WAIT
        while time.monotonic() - begun < self.patience:
            try:
                answer: Answer = json.loads(self.store.get(answer_key(self.task, nimg), max_bytes=1 << 20))
                return answer
            except NotFound:
                pass
            if self.asked():
                return None
            time.sleep(pause)
            pause = min(LONGEST_WAIT, 1.5 * pause)
        return None

    def following(self) -> GanTask | None:
        """The task to go on with at once, when the answer was another turn."""
        if self.answer and self.answer["do"] == "turn":
            return GanTask(**self.answer["task"])
        return None


def _here(line: Line) -> bool:
    trial = line.task.run.rpartition("/")[2]
    about = f"trial {trial} on {socket.gethostname()} (process {os.getpid()}), code in {root()}"
    import torch

    threads = torch.get_num_threads()
    try:
        with captured(line.store, line.task.run, "rank-0", about):
            finished = run_gan(line.task, TaskHooks(measured=line.measured, should_stop=line.asked))
    finally:
        torch.set_num_threads(threads)  # the actor is used again
    if line.failure:
        raise line.failure
    return finished


def _on_workers(line: Line, resources: ResourcesSpec, retry: RetrySpec) -> bool:
    """The trial as a Ray Train run of its own; this actor passes on what its first rank measures, and waits in its stead."""
    task = line.task
    run = start(lambda: train_on_ray(RaySession(), task, resources, retry=retry, rank=trial_rank), "trial")
    seen: set[str] = set()
    last, best = 0, task.best
    while True:
        over = run.done()
        for info in line.store.list(told_prefix(task)):
            if info.key not in seen:
                seen.add(info.key)
                told = json.loads(line.store.get(info.key, max_bytes=1 << 20))
                last, best = max(last, told["nimg"]), _better(task, best, told["value"])
                line.tell(told["nimg"], told["value"])
        if over:
            break
        time.sleep(0.3)
    run.result()
    if last >= line.total:
        return True
    if last and line.waits:
        line.answer = line.wait(last)
        if line.answer and line.answer["do"] == "go":  # it was not patient enough
            line.answer = {"do": "turn", "task": asdict(replace(task, start=(task.run, last), best=best))}
    return False


def _better(task: GanTask, best: float | None, value: float) -> float:
    assert task.objective is not None
    return value if best is None else (min if task.objective[1] == "min" else max)(best, value)


def trial_rank(config: dict[str, Any]) -> None:
    """One rank of a trial's Ray Train run."""
    take_part(config, _rank_hooks)


def _rank_hooks(task: GanTask, store: Store, leaving: Leaving) -> TaskHooks:
    def tell(nimg: int, value: float) -> None:
        store.put(f"{told_prefix(task)}{nimg:012d}.json", json.dumps({"nimg": nimg, "value": value}).encode())

    line = Line(store, task, bool(task.evaluate_at), tell, RANK_PATIENCE)

    def measured(nimg: int, values: dict[str, float]) -> bool:
        ends = line.measured(nimg, values)
        if line.failure:  # all ranks end in order; the driver finds it
            Runs(store).put_json(task.run, error_name(task), line.failure.to_json() | {"type": "RunFailed"})
        return ends

    return TaskHooks(measured=measured, should_stop=lambda: leaving() or line.over())
