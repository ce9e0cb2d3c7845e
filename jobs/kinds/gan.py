"""Kinds `pretrain` and `finetune`: train a GAN, alone in this process or on Ray workers, and publish it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import ValidationError

from cluster.drafts import files_of, get_draft, unpin_all
from cluster.fence import Fence
from cluster.job import FinetuneJob, GanJob, GuardsSpec, PretrainJob
from cluster.patience import patiently
from cluster.runs import RunRecord
from cluster.store import s3_endpoint
from cluster.task import GanTask, TaskHooks, run_gan
from cluster.trainer import train_on_ray
from jobs.execute import Outcome, forget_progress
from jobs.pin import Plan, extractor_ref, identity_of, pin_artifact, pin_recipe
from jobs.session import Session
from tlgan import methods
from tlgan.errors import Problem, RunFailed, RunStopped, SpecError
from tlgan.manifest import Manifest, Parent
from tlgan.recipe import LossSpec, ModelSpec, Recipe, TransferSpec
from tlgan.registry import TRANSFERS, blocks_at

log = logging.getLogger("tlgan.gan")


def prepare(job: PretrainJob | FinetuneJob, session: Session) -> Plan:
    session.ray.check(job.resources, on_ray=job.resources.workers > 0)
    recipe, ancestors = recipe_of(job, session)
    recipe, parents, facts = pin_recipe(session, recipe)
    parents = [*ancestors, *parents]
    return Plan(job, parents, {"recipe": identity_of(recipe)} | _ends(job), {"data": facts}, recipe)


def _ends(job: GanJob) -> dict[str, Any]:
    """What besides the recipe decides when a training ends and what it publishes; nothing, unless it was asked for."""
    best = {"best": job.checkpoint.best, "patience_kimg": job.checkpoint.patience_kimg} if job.checkpoint.best else {}
    guards = job.guards.model_dump(mode="json") if job.guards != GuardsSpec() else {}
    return {name: value for name, value in (("select", best), ("guards", guards)) if value}


def recipe_of(job: PretrainJob | FinetuneJob, session: Session) -> tuple[Recipe, list[Parent]]:
    """The job's recipe; for a fine-tuning the parent's networks and loss are filled in and the freeze depths checked."""
    if isinstance(job, PretrainJob):
        return _checked(job.recipe), []
    manifest, parent = pin_artifact(session, job.init_from, "init_from", "gan")
    if manifest.recipe is None:
        raise SpecError(f"init_from: {manifest.ref} does not say how its networks are built, it has no recipe")
    model = ModelSpec.model_validate(manifest.recipe["model"])
    if reason := methods.misfit(job.transfer.method, model.arch):
        raise SpecError(f"transfer.method: {reason}")
    loss = LossSpec.model_validate(manifest.recipe["loss"])
    recipe = _checked(lambda: job.recipe(model.model_copy(update={"channels": None}), loss))
    if (changed := _fixed_parts(model, recipe.model)) is not None:
        raise SpecError(f"model.{changed}: a fine-tuning keeps the parent's networks; leave it out, or pretrain anew")
    check_freezing(job.transfer, recipe.model)
    return recipe, [parent]


def _checked(make: Callable[[], Recipe]) -> Recipe:
    """A recipe whose parts may not go together, of which some come from the parent. Raises `SpecError`."""
    try:
        return make()
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [(str(e["msg"]).removeprefix("Value error, "), ".".join(map(str, e["loc"]))) for e in found]
        raise SpecError([Problem(message, path=path) for message, path in problems]) from None


def _fixed_parts(parent: ModelSpec, child: ModelSpec) -> str | None:
    """The first field in which the child's networks would not be the parent's."""
    fields = (name for name in ModelSpec.model_fields if name != "channels")
    return next((f for f in fields if getattr(parent, f) != getattr(child, f)), None)


def check_freezing(transfer: TransferSpec, model: ModelSpec) -> None:
    if not TRANSFERS.facts(transfer.method).get("freezes"):
        return
    for field in ("freeze_d", "freeze_g"):
        depth, blocks = getattr(transfer, field), blocks_at(model.resolution, model.arch, field[-1].upper())
        if depth >= blocks:
            raise SpecError(
                f"transfer.{field}: expected at most {blocks - 1} (a {model.resolution} px network has {blocks} blocks, one must "
                f"stay trainable), received {depth}"
            )


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    task = task_of(plan, session, run)
    job = plan.job
    assert isinstance(job, GanJob)
    if job.resources.workers:
        with session.passing_on_interrupts(run):
            hear = partial(session.hear, run.id)
            finished = train_on_ray(session.ray, task, job.resources, hear, job.retry)
    else:
        hooks = TaskHooks(listener=lambda event: session.hear(run.id, event), should_stop=session.should_stop(run))
        finished = run_gan(task, hooks)
    if not finished:
        raise RunStopped(f"run {run.id} was stopped", hint="the same command resumes it from its last checkpoint")
    manifest = publish(plan, session, run, job.publishes.artifact, job.publishes.aliases)
    forget_progress(session, run)
    return Outcome([manifest], facts={})


def task_of(plan: Plan, session: Session, run: RunRecord, where: str | None = None, **changes: Any) -> GanTask:
    """The training of `plan` as part of `run`. `where`: below which run it writes, if not `run` itself."""
    job, recipe = plan.job, plan.recipe
    assert isinstance(job, GanJob)
    assert isinstance(recipe, Recipe)
    fields: dict[str, Any] = {
        "run": where or run.id,
        "attempt": run.attempt,
        "store": session.artifacts.url,
        "endpoint": s3_endpoint(),
        "recipe": recipe.model_dump(mode="json"),
        "workdir": str(session.workdir(run.id)),
        "parent": next((p.ref for p in plan.parents if p.role == "init_from"), None),
        "extractor_ref": extractor_ref(plan.parents),
        "checkpoint_every_kimg": job.checkpoint.every_kimg,
        "keep": job.checkpoint.keep,
        "grid_every_kimg": job.grid.every_kimg,
        "grid": (job.grid.rows, job.grid.cols),
        "patience": 60 * job.retry.wait_minutes,
        "guards": job.guards.model_dump(mode="json"),
    }
    if job.checkpoint.best and where is None:  # a trial has its sweep's objective
        patience = job.checkpoint.patience_kimg
        fields["objective"] = (job.checkpoint.best, job.checkpoint.direction)
        fields |= {"selects": True, "give_up_after": None if patience is None else round(patience * 1000)}
    return GanTask(**{**fields, **changes})


def finite(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What can be published: a metric that is not a number says nothing, and must not cost the training's result."""
    for metric in metrics:
        if not math.isfinite(metric["value"]):
            log.warning("%s is %s and is left out of the artifact", metric["name"], metric["value"])
    return [metric for metric in metrics if math.isfinite(metric["value"])]


def publish(
    plan: Plan,
    session: Session,
    run: RunRecord,
    name: str,
    aliases: list[str],
    *,
    where: str | None = None,
    **changes: Any,
) -> Manifest:
    """Commits the draft that the training left as a version of `name`. `where`: below which run, if not `run` itself.

    Raises `Conflict` when a later attempt of the run has begun.
    """
    store = session.artifacts.store
    draft = patiently(lambda: get_draft(store, where or run.id, run.attempt), f"run {run.id}")
    if draft is None:
        raise RunFailed(f"run {where or run.id} ended without a result in the store")
    assert plan.recipe is not None
    facts = {**plan.facts, "nimg": draft["nimg"], "channels": draft["channels"], "run": run.id}
    if draft.get("coverage"):
        facts["coverage"] = draft["coverage"]
    fields: dict[str, Any] = {
        "kind": "gan",
        "parents": plan.parents,
        "recipe": plan.recipe.model_dump(mode="json"),
        "metrics": draft["metrics"],
        "facts": facts,
    }
    fields |= changes
    fields["metrics"] = finite(fields["metrics"])
    manifest = Manifest.create(name, files_of(draft), **fields)
    fence = Fence(store, run.id, run.attempt)

    def commit() -> Manifest:
        published = session.artifacts.commit(manifest, dict.fromkeys(["latest", *aliases]), fence, fence.claim)
        unpin_all(store, run.id)
        return published

    return patiently(commit, f"the result of run {run.id}")
