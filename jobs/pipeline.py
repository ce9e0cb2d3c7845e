"""Kind `pipeline`: stages in the order of their needs, side by side where they don't need each other and fit the machine.

What a stage makes is handed to the next by digest. A stage whose recipe and inputs are unchanged is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from typing import Any

from cluster.job import ArtifactInput, EvaluateJob, FinetuneJob, Job, PipelineJob, SweepJob, TrainingJob, inputs_of
from cluster.patience import patiently
from cluster.runs import RunRecord
from cluster.waiting import start
from jobs.execute import Outcome, execute
from jobs.pin import Plan
from jobs.session import Session, cores
from tlgan.errors import RunStopped, SpecError, TlganError
from tlgan.manifest import Manifest, now_utc

AT_ONCE = "ended at once by a person"


def prepare(job: PipelineJob, session: Session) -> Plan:
    """Checks what can be checked before the first stage: that each stage's workers fit the machine or cluster."""
    for stage in job.stages.values():
        run = stage.run
        if isinstance(run, SweepJob):
            session.ray.check(run.base.resources, on_ray=True)
        elif isinstance(run, TrainingJob):
            session.ray.check(run.resources, on_ray=_on_ray(run))
    return Plan(job, [], {"spec": job.to_dict()}, payload={"never_cached": True})


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    job = plan.job
    assert isinstance(job, PipelineJob)
    done: dict[str, RunRecord] = {}
    running: dict[Future[RunRecord], str] = {}
    waiting = job.order()
    failure: BaseException | None = None
    should_stop = session.should_stop(run)
    while waiting or running:
        if should_stop():
            session.interrupted.set()  # every stage hears it, and those that wait are not begun
        for name in list(waiting) if failure is None and not session.interrupted.is_set() else []:
            if _ready(name, job, done, set(running.values())):
                waiting.remove(name)
                stage = with_inputs(job.stages[name].run, _made(done))
                work = partial(patiently, partial(execute, stage, session), f"stage {name}")  # it goes on where it was
                running[start(work, f"stage {name}")] = name
        if not running:
            break
        session.ray.take_signals_back()
        ended = _finished(running, session)
        if not ended and any(_on_ray(job.stages[name].run) for name in waiting):
            session.ray.connect_ahead()  # by now it is clear that not everything was done before
        for future in ended:
            name = running.pop(future)
            error = future.exception()
            if error is None:
                done[name] = future.result()
            else:
                failure = failure or error
    if failure is not None:
        raise failure
    if waiting:
        hint = "the same command goes on with the stages that are left"
        raise RunStopped(f"pipeline {run.id} was stopped before {', '.join(waiting)}", hint=hint)
    stages = {name: {"run": done[name].id, "outputs": done[name].outputs} for name in job.order()}
    made = patiently(lambda: _outputs(done, session), f"pipeline {run.id}")
    return Outcome(made, facts={"stages": stages})


def _on_ray(job: Job) -> bool:
    """Whether it starts Ray, or joins a cluster."""
    if isinstance(job, TrainingJob):
        return job.resources.workers > 0 and job.makes == "gan"
    return isinstance(job, SweepJob) or (isinstance(job, EvaluateJob) and job.resources.workers > 0)


def _finished(running: Mapping[Future[RunRecord], str], session: Session) -> set[Future[RunRecord]]:
    """Stages that have ended, after a second at the most. A Ctrl-C that does not wait for them is recorded."""
    try:
        return wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done
    except KeyboardInterrupt:
        for run_id in list(session.open):
            with suppress(TlganError):
                session.runs.update(run_id, state="stopped", reason=AT_ONCE, finished=now_utc())
        raise


def _ready(name: str, job: PipelineJob, done: Mapping[str, Any], running: set[str]) -> bool:
    """All its needs are met, and it fits beside what is running."""
    if any(need not in done for need in job.stages[name].needs):
        return False
    busy = sum(demand(job.stages[other].run) for other in running)
    return not running or busy + demand(job.stages[name].run) <= cores()


def demand(job: Job) -> int:
    """Processors a stage keeps busy; one that trains or measures in this process takes all of them."""
    if isinstance(job, SweepJob):
        return job.search.parallel * job.base.resources.cpus_per_worker
    if isinstance(job, TrainingJob) and job.resources.workers:
        return job.resources.workers * job.resources.cpus_per_worker
    return cores()


def _made(done: Mapping[str, RunRecord]) -> dict[str, str]:
    """Stage -> pinned reference of what it made."""
    return {name: record.outputs[-1]["ref"] for name, record in done.items() if record.outputs}


def with_inputs(job: Job, made: Mapping[str, str]) -> Job:
    """`job` with every `{stage: x}` replaced by the artifact that stage made. Raises `SpecError`."""
    changes = {}
    for path, wanted in inputs_of(job).items():
        if wanted.stage is not None:
            if wanted.stage not in made:
                raise SpecError(f"{path}: stage {wanted.stage} has made no artifact")
            changes[path.rpartition(".")[2]] = ArtifactInput(artifact=made[wanted.stage])
    if not changes:
        return job
    if isinstance(job, SweepJob):
        assert isinstance(job.base, FinetuneJob)
        return job.model_copy(update={"base": job.base.model_copy(update=changes)})
    return job.model_copy(update=changes)


def _outputs(done: Mapping[str, RunRecord], session: Session) -> list[Manifest]:
    refs = [output["ref"] for record in done.values() for output in record.outputs]
    return [session.artifacts.resolve(ref) for ref in dict.fromkeys(refs)]
