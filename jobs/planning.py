"""What a job would do, before it does it: what is done already, how long it takes, what it costs. Starts nothing but a probe.

The estimate is written beside the run (runs/<run>/estimate.json), and when the run has ended its record says how far off it was.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from typing import Any

from cluster.job import GanJob, Job, PipelineJob, SweepJob
from cluster.sections import ResourcesSpec
from cluster.store import s3_endpoint
from cluster.targets.base import Price, Target, Ticket
from jobs.execute import MODULES, cached_run
from jobs.pin import EMBEDDED, Plan, extractor_ref
from jobs.pipeline import with_inputs
from jobs.probing import probe_on, run_probe
from jobs.session import Session
from tlgan.errors import NotFound
from tlgan.recipe import Recipe


@dataclass
class StagePlan:
    """`state`: `done` (not run again), `runs`, or `open` when what it starts from is not there yet. `why` says more."""

    name: str
    kind: str
    state: str
    run: str | None = None
    outputs: list[str] = field(default_factory=list)
    why: str = ""
    plan: Plan | None = field(default=None, repr=False)


class NoRoomCheck:
    """In the place of a session's Ray: the plan is for another machine, whose room was looked at already."""

    def check(self, resources: ResourcesSpec, *, on_ray: bool) -> None:
        pass

    def close(self) -> None:
        pass


def stages_of(job: Job, session: Session) -> list[StagePlan]:
    """Every stage in order; a job that is no pipeline is one stage."""
    if not isinstance(job, PipelineJob):
        return [_stage(job.name, job, session)]
    made: dict[str, str] = {}
    found = []
    for name in job.order():
        needs = [need for need in job.stages[name].needs if need not in made]
        if needs:
            kind = job.stages[name].run.kind
            found.append(StagePlan(name, kind, "open", why=f"what {', '.join(needs)} will make is not known yet"))
            continue
        stage = _stage(name, with_inputs(job.stages[name].run, made), session)
        found.append(stage)
        if stage.state == "done":
            made[name] = stage.outputs[-1] if stage.outputs else ""
    return found


def _stage(name: str, job: Job, session: Session) -> StagePlan:
    module = importlib.import_module(MODULES[job.kind])
    try:
        plan: Plan = module.prepare(job, session)
    except NotFound as error:
        if not session.only_plans or EMBEDDED not in error.message:
            raise
        return StagePlan(name, job.kind, "open", why=f"the extractor {EMBEDDED} is trained first")
    cached = cached_run(plan, session)
    if cached is None:
        return StagePlan(name, job.kind, "runs", plan.run_id, plan=plan)
    return StagePlan(name, job.kind, "done", cached.id, [output["ref"] for output in cached.outputs], plan=plan)


@dataclass(frozen=True)
class Estimate:
    """Of one stage. `seconds` in all, `memory_bytes` a worker; of a sweep at most, for early stopping saves some."""

    stage: str
    seconds: float
    steps: int
    step_seconds: float
    measurements: int
    measure_seconds: float
    begin_seconds: float
    trials: int
    memory_bytes: int
    gpu_memory_bytes: int
    cpus: float
    gpus: float

    def cost(self, price: Price) -> float:
        hours = self.seconds / 3600
        return hours * (self.cpus * price.cpu_hour + self.gpus * price.gpu_hour)


def estimate(stage: StagePlan, session: Session, target: Target, ticket: Ticket) -> Estimate | None:
    """From a probe where the run would be; None for a stage that trains no GAN, or is not run. Raises `RunFailed`."""
    if stage.state != "runs" or stage.plan is None:
        return None
    job = stage.plan.job
    base = job.base if isinstance(job, SweepJob) else job
    recipe = stage.plan.recipe
    if not isinstance(base, GanJob) or not isinstance(recipe, Recipe):
        return None
    workers, trials = max(base.resources.workers, 1), job.search.trials if isinstance(job, SweepJob) else 1
    at_once = min(job.search.parallel, trials) if isinstance(job, SweepJob) else 1
    task = _task(stage.plan, recipe, base.resources, workers, session)
    if target.kind == "local":
        figures = run_probe(task)
    else:
        figures = probe_on(target, ticket, task, base.resources, session.artifacts)
    steps = math.ceil(recipe.train.kimg * 1000 / (recipe.train.batch_size * recipe.train.n_critic))
    measurements = _measurements(recipe, base) if recipe.metrics else 0
    one = figures["begin_seconds"] + steps * figures["step_seconds"] + measurements * figures["measure_seconds"]
    return Estimate(
        stage.name,
        one * math.ceil(trials / at_once),
        steps,
        figures["step_seconds"],
        measurements,
        figures["measure_seconds"],
        figures["begin_seconds"],
        trials,
        figures["memory_bytes"],
        figures["gpu_memory_bytes"],
        cpus=workers * base.resources.cpus_per_worker * at_once,
        gpus=workers * base.resources.gpus_per_worker * at_once,
    )


def _measurements(recipe: Recipe, job: GanJob) -> int:
    every = recipe.evaluation.every_kimg or job.checkpoint.every_kimg or recipe.train.kimg / 10
    return max(1, math.ceil(recipe.train.kimg / every - 1e-9))


def _task(plan: Plan, recipe: Recipe, resources: ResourcesSpec, workers: int, session: Session) -> dict[str, Any]:
    """What `jobs.probe` tries: one of `workers`, with its share of the batch and its threads."""
    train = recipe.train.model_copy(update={"batch_size": recipe.train.batch_size // workers})
    return {
        "run": "probe",
        "store": session.artifacts.url,
        "endpoint": s3_endpoint(),
        "recipe": recipe.model_copy(update={"train": train}).model_dump(mode="json"),
        "workdir": "",
        "parent": next((p.ref for p in plan.parents if p.role == "init_from"), None),
        "extractor_ref": extractor_ref(plan.parents),
        "threads": resources.cpus_per_worker,
        "device": None if resources.gpus_per_worker else "cpu",
        "measured": bool(recipe.metrics),
    }
