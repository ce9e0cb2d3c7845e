"""Kind `sweep`: search how to train `base`, measure the best trials again with more samples, publish the winner."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace
from typing import Any

from cluster.drafts import files_of, get_draft, keep_draft
from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.job import FinetuneJob, PretrainJob, SweepJob
from cluster.runs import RunRecord
from cluster.specfile import apply_params
from cluster.stopping import stop_key
from cluster.task import evaluator_of
from cluster.tuner import Trial, rungs, sample, search
from jobs.execute import Outcome
from jobs.kinds.gan import publish, recipe_of, task_of
from jobs.pin import Plan, identity_of, pin_recipe
from jobs.session import Session
from tlgan.errors import Conflict, RunFailed, RunStopped, SpecError
from tlgan.manifest import Manifest
from tlgan.recipe import Recipe

log = logging.getLogger("tlgan.sweep")
ENDED = ("succeeded", "stopped")


def prepare(job: SweepJob, session: Session) -> Plan:
    base = job.base
    if base.resources.workers > 1:
        raise SpecError(
            f"base.resources.workers: a trial runs on one worker, received {base.resources.workers}",
            hint="leave `workers` out of the base, and set search.parallel",
        )
    session.ray.check(base.resources, on_ray=True)
    metrics = list(dict.fromkeys([*base.metrics, job.objective.metric]))
    base = base.model_copy(update={"metrics": metrics})
    recipe, ancestors = recipe_of(base, session)
    recipe, parents, facts = pin_recipe(session, recipe)
    own = base.model_dump(mode="json") if job.search.include_base else None
    points = sample(job.space, job.search.algo, job.search.trials, job.search.seed, own)
    if job.search.algo == "grid" and (size := grid_size(job)) > len(points):
        log.warning("the grid has %d points, the first %d are tried (search.trials)", size, len(points))
    plans = [_plan_of(base, point, recipe, [*ancestors, *parents], facts, session) for point in points]
    identity = {
        "trials": [{**plan.identity, "inputs": sorted((p.role, p.digest) for p in plan.parents)} for plan in plans],
        "search": job.model_dump(mode="json", include={"early_stop", "objective", "finalists", "final_samples"}),
    }
    return Plan(job, plans[0].parents, identity, {"data": facts}, recipe, {"plans": plans, "points": points})


def grid_size(job: SweepJob) -> int:
    return math.prod(len(space.grid() or []) for space in job.space.values())


def _plan_of(
    base: Any, point: dict[str, Any], pinned: Recipe, parents: list[Any], facts: Any, session: Session
) -> Plan:
    """A trial: the base with the point's values, on data and with measurements pinned once for all trials."""
    changed = apply_params(base, point)
    assert isinstance(changed, PretrainJob | FinetuneJob)
    if any(path.partition(".")[0] in ("data", "evaluation", "init_from") for path in point):
        recipe, ancestors = recipe_of(changed, session)
        recipe, parents, facts = pin_recipe(session, recipe)
        parents = [*ancestors, *parents]
    else:
        written, _ = recipe_of(changed, session)
        recipe = written.model_copy(
            update={"data": pinned.data, "evaluation": pinned.evaluation, "model": _same_channels(written, pinned)}
        )
    return Plan(changed, parents, {"recipe": identity_of(recipe), "params": point}, {"data": facts}, recipe)


def _same_channels(recipe: Recipe, pinned: Recipe) -> Any:
    return recipe.model.model_copy(update={"channels": pinned.model.channels})


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    job = plan.job
    assert isinstance(job, SweepJob)
    desk = _Desk(plan, session, run)
    trials = desk.known()
    tasks = {trial.trial: desk.task(trial) for trial in trials if trial.state not in ENDED}
    try:
        if tasks:
            with session.passing_on_interrupts(run.id):
                trials = search(session.ray, job, trials, tasks, desk.tell)
            desk.fence()
        if session.artifacts.store.head(stop_key(run.id)) is not None:
            raise RunStopped(f"sweep {run.id} was stopped", hint="the same command runs the trials that are left")
        ranked = desk.rank(trials)
        winner, metrics = desk.finals(ranked)
        manifest = desk.publish(winner, metrics)
    finally:
        desk.writer.close()
    return Outcome([manifest], facts={"winner": winner.trial, "params": winner.params, "trials": len(trials)})


class _Desk:
    """The sweep's side in the store: trials, leaderboard, the winner."""

    def __init__(self, plan: Plan, session: Session, run: RunRecord) -> None:
        self.plan, self.session, self.run, self.run_id = plan, session, run, run.id
        self.store = session.artifacts.store
        self.fence = Fence(self.store, run.id, run.attempt)
        assert isinstance(plan.job, SweepJob)
        self.job = plan.job
        self.plans: dict[str, Plan] = {f"{i:03d}": p for i, p in enumerate(plan.payload["plans"])}
        self.writer = EventWriter(self.store, run.id, lambda event: session.listener(run.id, event))
        self.board: dict[str, Trial] = {}

    def prefix(self, trial: str) -> str:
        return f"{self.run_id}/trials/{trial}"

    def known(self) -> list[Trial]:
        """All trials; those that an earlier attempt of the same sweep ended are taken over, if their networks are still there."""
        for number, (name, params) in enumerate(zip(self.plans, self.plan.payload["points"], strict=True)):
            stored = None if self.session.fresh else self.session.runs.get_json(self.prefix(name), "trial.json")
            ended = stored is not None and stored["state"] in ENDED and self._is_kept(name)
            self.board[name] = Trial(**(stored or {})) if ended else Trial(name, params)
            self.writer(
                {"type": "trial", "number": number, **asdict(self.board[name]), "mode": self.job.objective.direction}
            )
        return list(self.board.values())

    def _is_kept(self, name: str) -> bool:
        """Whether the networks of a trial that has ended are in the store; from now on they stay."""
        draft = get_draft(self.store, self.prefix(name), self.run.attempt)
        if draft and keep_draft(self.session.artifacts, self.prefix(name), self.run.attempt, draft):
            return True
        log.warning("trial %s had ended, but its networks are not in the store any more: it is trained again", name)
        return False

    def task(self, trial: Trial) -> Any:
        """Trials keep no checkpoints: they are short, and a trial that is lost is run again."""
        return task_of(
            self.plans[trial.trial],
            self.session,
            self.run,
            self.prefix(trial.trial),
            workdir=str(self.session.workdir(self.run_id) / trial.trial),
            evaluate_at=rungs(self.job, round(self._recipe(trial).train.kimg * 1000)),
            threads=self.job.base.resources.cpus_per_worker,
            checkpoints_to_store=False,
            objective=(self.job.objective.metric, self.job.objective.direction),
        )

    def tell(self, trial: Trial) -> None:
        """Hears every change. Writes nothing once a later attempt has begun; Tune is not disturbed by that."""
        self.board[trial.trial] = trial
        try:
            self.fence()
        except Conflict as error:
            log.warning("%s", error)
            return
        self.writer({"type": "trial", **asdict(trial), "mode": self.job.objective.direction})
        self.session.runs.put_json(self.prefix(trial.trial), "trial.json", asdict(trial))
        self.session.runs.put_json(self.run_id, "leaderboard.json", leaderboard(self.board.values(), self.job))

    def rank(self, trials: list[Trial]) -> list[Trial]:
        """Trials with a result, best first. Raises `RunFailed` when there is none."""
        rows = [
            row for row in leaderboard(trials, self.job) if row["objective"] is not None and row["state"] != "failed"
        ]
        if not rows:
            reasons = sorted({trial.reason or trial.state for trial in trials})
            raise RunFailed(f"all {len(trials)} trials failed: {'; '.join(reasons[:3])}")
        return [self.board[row["trial"]] for row in rows]

    def finals(self, ranked: list[Trial]) -> tuple[Trial, list[dict[str, Any]]]:
        """The best of the finalists, measured again with more samples and another seed, and its metrics."""
        finals = {}
        for trial in ranked[: self.job.finalists]:
            finals[trial.trial] = self._measure(trial)
            self.writer({"type": "final", "trial": trial.trial, "metrics": finals[trial.trial]})
        scores = {
            name: float(next(m["value"] for m in values if m["name"] == self.job.objective.metric))
            for name, values in finals.items()
        }
        rows = leaderboard(self.board.values(), self.job)
        for row in rows:
            row["final"] = scores.get(row["trial"])
        best = best_of(scores, self.job.objective.direction)
        self.session.runs.put_json(self.run_id, "leaderboard.json", rows)
        for metric in finals[best]:
            self.writer({"type": "metric", "nimg": self.board[best].nimg, **metric})
        return self.board[best], finals[best]

    def _measure(self, trial: Trial) -> list[dict[str, Any]]:
        from tlgan.artifact import load_generator, load_network
        from tlgan.distributed import World

        recipe = self._recipe(trial)
        samples = self.job.final_samples or 2 * recipe.evaluation.samples
        protocol = recipe.evaluation.model_copy(update={"samples": samples, "seed": recipe.evaluation.seed + 1})
        recipe = recipe.model_copy(update={"evaluation": protocol})
        evaluate = evaluator_of(self.task(trial), recipe, self.session.artifacts)
        path = self.session.artifacts.pull(self._draft(trial), published=False)
        return [value.to_json() for value in evaluate(load_generator(path), World(), load_network(path, "D"))]

    def _recipe(self, trial: Trial) -> Recipe:
        recipe = self.plans[trial.trial].recipe
        assert isinstance(recipe, Recipe)
        return recipe

    def _draft(self, trial: Trial) -> Manifest:
        draft = get_draft(self.store, self.prefix(trial.trial), self.run.attempt)
        if draft is None:
            raise RunFailed(f"trial {trial.trial} left no result in the store")
        return Manifest.create("draft", files_of(draft), kind="gan", created="1970-01-01T00:00:00.000000Z")

    def publish(self, winner: Trial, metrics: list[dict[str, Any]]) -> Manifest:
        plan = self.plans[winner.trial]
        about = {"sweep": self.run_id, "trial": winner.trial, "params": winner.params}
        plan = replace(plan, facts={**plan.facts, **about})
        output, where = self.job.publishes, self.prefix(winner.trial)
        return publish(plan, self.session, self.run, output.artifact, output.aliases, where=where, metrics=metrics)


def best_of(scores: dict[str, float], direction: str) -> str:
    """The trial with the best finite score. Raises `RunFailed` when none is."""
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    if not finite:
        raise RunFailed(f"no finalist could be measured: {', '.join(f'{n} gave {s}' for n, s in scores.items())}")
    return (min if direction == "min" else max)(finite, key=finite.__getitem__)


def leaderboard(trials: Any, job: SweepJob) -> list[dict[str, Any]]:
    """Rows of {trial, state, nimg, objective, params, reason}, best first; trials without a result last."""
    sign = 1 if job.objective.direction == "min" else -1

    def key(trial: Trial) -> tuple[bool, bool, float, str]:
        failed = trial.state == "failed"
        return (trial.objective is None, failed, sign * (trial.objective or 0.0), trial.trial)

    return [asdict(trial) for trial in sorted(trials, key=key)]
