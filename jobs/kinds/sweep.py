"""Kind `sweep`: search how to train `base`, measure the best trials again with more samples, publish the winner."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, TypeVar

from cluster.checkpoints import Checkpoints
from cluster.discard import discard
from cluster.drafts import files_of, get_draft, keep_draft
from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.job import FinetuneJob, PretrainJob, SweepJob
from cluster.patience import patiently
from cluster.runs import RunRecord
from cluster.search import tpe
from cluster.search.build import director_of
from cluster.search.director import Director, Turn
from cluster.search.ledger import Entry, Ledger
from cluster.search.points import grid_size, sample
from cluster.search.tpe import require_optuna
from cluster.sections import BudgetSpec
from cluster.specfile import apply_params
from cluster.stopping import stop_key
from cluster.task import GanTask, evaluator_of
from cluster.tuner import Trial, row_of, search
from jobs.execute import Outcome
from jobs.kinds.gan import publish, recipe_of, task_of
from jobs.pin import Plan, identity_of, pin_recipe
from jobs.session import Session
from tlgan.canonical import canonical_json
from tlgan.errors import Conflict, RunFailed, RunStopped
from tlgan.manifest import Manifest
from tlgan.recipe import Recipe

log = logging.getLogger("tlgan.sweep")
T = TypeVar("T")
ENDED = ("succeeded", "stopped")
FINALS = "finals.json"  # of a run: trial -> digest of its networks, and what was measured of them with more samples


def prepare(job: SweepJob, session: Session) -> Plan:
    if job.search.algo == "tpe":
        require_optuna()
    session.ray.check(job.base.resources, on_ray=True)
    metrics = list(dict.fromkeys([*job.base.metrics, job.objective.metric]))
    base = job.base.model_copy(update={"metrics": metrics})
    recipe, ancestors = recipe_of(base, session)
    recipe, parents, facts = pin_recipe(session, recipe)
    source = _Source(base, recipe, [*ancestors, *parents], facts, session)
    own = base.model_dump(mode="json") if job.search.include_base else None
    points = sample(job.space, job.search.algo, first_points(job), job.search.seed, own)
    if job.search.algo == "grid" and (size := grid_size(job.space)) > len(points):
        log.warning("the grid has %d points, the first %d are tried (search.trials)", size, len(points))
    plans = [source.plan_of(point) for point in points]
    identity = {
        "trials": [{**plan.identity, "inputs": sorted((p.role, p.digest) for p in plan.parents)} for plan in plans],
        "search": job.model_dump(mode="json", include={"early_stop", "objective", "finalists", "final_samples"}),
        **_decides(job),
    }
    payload = {"source": source, "valid": lambda plan, found: _is_whole(session, job, found)}
    return Plan(job, plans[0].parents, identity, {"data": facts}, recipe, payload)


def first_points(job: SweepJob) -> int:
    """How many points are known before anything is measured."""
    return tpe.startup(job.search.trials) if job.search.algo == "tpe" else job.search.trials


def _decides(job: SweepJob) -> dict[str, Any]:
    """What decides about later trials, or may cut the search short, beside the first points."""
    if job.search.algo in ("random", "grid") and job.search.budget == BudgetSpec():
        return {}
    return {"decides": job.model_dump(mode="json", include={"search", "space"}, by_alias=True)}


def _is_whole(session: Session, job: SweepJob, found: RunRecord) -> bool:
    """Whether nothing is left to do in the search: trials may have been added, or are to be trained again."""
    ledger = Ledger(session.artifacts.store, found.id)
    return not ledger.entries or director_of(job, ledger).over


class _Source:
    """Plans of trials: the base with a point's values, on data and with measurements pinned once for all trials."""

    def __init__(self, base: Any, pinned: Recipe, parents: list[Any], facts: dict[str, Any], session: Session) -> None:
        self.base, self.pinned, self.parents, self.facts, self.session = base, pinned, parents, facts, session
        self._made: dict[bytes, Plan] = {}

    def plan_of(self, point: dict[str, Any]) -> Plan:
        """Raises `SpecError` for values that don't go together."""
        key = canonical_json(point)
        if key not in self._made:
            self._made[key] = self._plan(point)
        return self._made[key]

    def _plan(self, point: dict[str, Any]) -> Plan:
        changed = apply_params(self.base, point)
        assert isinstance(changed, PretrainJob | FinetuneJob)
        if any(path.partition(".")[0] in ("data", "evaluation", "init_from") for path in point):
            recipe, ancestors = recipe_of(changed, self.session)
            recipe, parents, facts = pin_recipe(self.session, recipe)
            parents = [*ancestors, *parents]
        else:
            written, _ = recipe_of(changed, self.session)
            model = written.model.model_copy(update={"channels": self.pinned.model.channels})
            update = {"data": self.pinned.data, "evaluation": self.pinned.evaluation, "model": model}
            recipe, parents, facts = written.model_copy(update=update), self.parents, self.facts
        return Plan(changed, parents, {"recipe": identity_of(recipe), "params": point}, {"data": facts}, recipe)


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    job = plan.job
    assert isinstance(job, SweepJob)
    desk = _Desk(plan, session, run)
    try:
        director = desk.open()
        if not director.over:
            with session.passing_on_interrupts(run):
                search(session.ray, job, director, desk.task, desk.tell)
            desk.patiently(desk.fence)
        if desk.patiently(lambda: desk.store.head(stop_key(run.id, run.attempt))) is not None:
            raise RunStopped(f"sweep {run.id} was stopped", hint="the same command runs the trials that are left")
        ranked = desk.rank()
        winner, metrics = desk.finals(ranked)
        manifest = desk.publish(winner, metrics)
        desk.patiently(desk.forget)
    finally:
        desk.writer.close()
    facts = {"winner": winner.trial, "params": winner.params, "trials": len(desk.board)}
    return Outcome([manifest], facts={**facts, **({"budget": director.exhausted} if director.exhausted else {})})


class _Desk:
    """The sweep's side in the store: ledger, trials, leaderboard, the winner."""

    def __init__(self, plan: Plan, session: Session, run: RunRecord) -> None:
        self.plan, self.session, self.run, self.run_id = plan, session, run, run.id
        self.store = session.artifacts.store
        self.fence = Fence(self.store, run.id, run.attempt)
        assert isinstance(plan.job, SweepJob)
        self.job = plan.job
        self.source: _Source = plan.payload["source"]
        self.writer = EventWriter(self.store, run.id, lambda event: session.hear(run.id, event))
        self.board: dict[str, Trial] = {}

    def patiently(self, work: Callable[[], T]) -> T:
        """What the search does in the store waits for one that is away."""
        return patiently(work, f"sweep {self.run_id}")

    def prefix(self, trial: str) -> str:
        return f"{self.run_id}/trials/{trial}"

    def open(self) -> Director:
        """The search as its ledger has it; trials that are over stay so, if their networks are still there."""
        if self.session.fresh:
            self._clear()
        ledger = Ledger(self.store, self.run_id, self.fence)
        self.director = director_of(self.job, ledger)
        if again := list(self._to_train_again()):
            ledger.append(*again)
            self.director = director_of(self.job, ledger)
        for member in self.director.members:
            self.tell(row_of(member, None), recorded=True)
        for number, point in enumerate(self._coming()):
            self.tell(Trial(f"{number + len(self.director.members):03d}", point), recorded=True)
        return self.director

    def _to_train_again(self) -> Iterator[Entry]:
        """Trials whose networks are gone, and all of them when the search is over and none has a result."""
        members = self.director.members
        if self.job.search.algo == "pbt":  # its generations have gone on
            return
        for member in members:
            if member.state in ENDED and member.best and not self._is_kept(member.name):
                yield {"type": "again", "trial": member.name, "why": "its networks are gone"}
        if self.director.over and all(member.state == "failed" for member in members):
            for member in members:
                yield {"type": "again", "trial": member.name, "why": "all trials had failed"}

    def _coming(self) -> list[dict[str, Any]]:
        """Points that are known to be tried, and are not in the ledger yet."""
        count = self.director.trials if self.job.search.algo != "tpe" else first_points(self.job)
        base = self.source.base.model_dump(mode="json") if self.job.search.include_base else None
        points = sample(self.job.space, self.job.search.algo, count, self.job.search.seed, base)
        return [] if self.director.exhausted else points[len(self.director.members) :]

    def _clear(self) -> None:
        for folder in ("ledger", "trials"):
            for info in list(self.store.list(f"runs/{self.run_id}/{folder}/")):
                self.store.delete(info.key)
        self.session.runs.put_json(self.run_id, FINALS, {})

    def _is_kept(self, name: str) -> bool:
        """Whether the networks of a trial that has ended are in the store; from now on they stay."""
        draft = get_draft(self.store, self.prefix(name), self.run.attempt)
        if draft and keep_draft(self.session.artifacts, self.prefix(name), self.run.attempt, draft):
            return True
        log.warning("trial %s had ended, but its networks are not in the store any more: it is trained again", name)
        return False

    def task(self, turn: Turn) -> GanTask:
        """A trial that is lost is run again, but for those that wait in the store: they leave a checkpoint where they are
        measured."""
        plan = self.source.plan_of(turn.params)
        member, rule = self.director.member(turn.trial), self.director.plan.rule
        begin = turn.start[1] if turn.start else 0
        keeps = rule.keeps_state or self.job.base.resources.workers > 1
        return task_of(
            plan,
            self.session,
            self.run,
            self.prefix(turn.trial),
            workdir=str(self.session.workdir(self.run_id) / f"{turn.trial}-{begin}"),
            evaluate_at=member.marks,
            threads=self.job.base.resources.cpus_per_worker,
            checkpoints_to_store=False,
            checkpoint_when_measured=keeps,
            keep=0,
            start=(self.prefix(turn.start[0]), turn.start[1]) if turn.start else None,
            best=turn.best,
            objective=(self.job.objective.metric, self.job.objective.direction),
        )

    def tell(self, trial: Trial, *, recorded: bool = False) -> None:
        """Hears every change. Writes nothing once a later attempt has begun; the ledger ends the search then."""
        self.board[trial.trial] = trial
        told = {"type": "trial", "number": int(trial.trial), **asdict(trial), "mode": self.job.objective.direction}
        self.writer(told)
        if recorded:
            return
        rows = leaderboard(self.board.values(), self.job)

        def write() -> None:
            self.fence()
            self.session.runs.put_json(self.prefix(trial.trial), "trial.json", asdict(trial))
            self.session.runs.put_json(self.run_id, "leaderboard.json", rows)

        try:
            self.patiently(write)
        except Conflict as error:
            log.warning("%s", error)

    def rank(self) -> list[Trial]:
        """Trials with a result, best first. Raises `RunFailed` when there is none."""
        rows = leaderboard(self.board.values(), self.job)
        ranked = [row for row in rows if row["objective"] is not None and row["state"] not in ("failed", "pending")]
        if not ranked:
            reasons = sorted({trial.reason or trial.state for trial in self.board.values()})
            raise RunFailed(
                f"all {len(self.board)} trials failed: {'; '.join(reasons[:3])}",
                hint=f"`tlgan sweep retry {self.run_id} --failed` trains them again",
            )
        return [self.board[row["trial"]] for row in ranked]

    def finals(self, ranked: list[Trial]) -> tuple[Trial, list[dict[str, Any]]]:
        """The best of the finalists, measured again with more samples and another seed, and its metrics.

        Finalists of earlier attempts stay in the running: an extension may leave a winner behind the first few, not behind
        the best.
        """
        kept = self.patiently(lambda: self.session.runs.get_json(self.run_id, FINALS)) or {}
        by_networks = {name: final for name, final in kept.items() if self._networks(name) == final["networks"]}
        finals = {name: final["metrics"] for name, final in by_networks.items()}
        for trial in ranked[: self.job.finalists]:
            if trial.trial in finals:
                continue
            finals[trial.trial] = self._measure(trial)
            by_networks[trial.trial] = {"networks": self._networks(trial.trial), "metrics": finals[trial.trial]}
            self.writer({"type": "final", "trial": trial.trial, "metrics": finals[trial.trial]})
        self.patiently(self.fence)
        self.patiently(lambda: self.session.runs.put_json(self.run_id, FINALS, by_networks))
        scores = {
            name: float(next(m["value"] for m in values if m["name"] == self.job.objective.metric))
            for name, values in finals.items()
        }
        rows = leaderboard(self.board.values(), self.job)
        for row in rows:
            row["final"] = scores.get(row["trial"])
        best = best_of(scores, self.job.objective.direction)
        self.patiently(lambda: self.session.runs.put_json(self.run_id, "leaderboard.json", rows))
        winner = self.board[best]
        for metric in finals[best]:
            self.writer(
                {"type": "metric", "nimg": winner.nimg if winner.best_nimg is None else winner.best_nimg, **metric}
            )
        return winner, finals[best]

    def _measure(self, trial: Trial) -> list[dict[str, Any]]:
        from tlgan.artifact import load_generator, load_network
        from tlgan.distributed import World

        recipe = self.source.plan_of(trial.params).recipe
        assert isinstance(recipe, Recipe)
        samples = self.job.final_samples or 2 * recipe.evaluation.samples
        protocol = recipe.evaluation.model_copy(update={"samples": samples, "seed": recipe.evaluation.seed + 1})
        recipe = recipe.model_copy(update={"evaluation": protocol})
        task = self.task(Turn(trial.trial, trial.params))
        evaluate = self.patiently(lambda: evaluator_of(task, recipe, self.session.artifacts))
        draft = self._draft(trial)
        path = self.patiently(lambda: self.session.artifacts.pull(draft, published=False))
        return [value.to_json() for value in evaluate(load_generator(path), World(), load_network(path, "D"))]

    def _networks(self, name: str) -> str | None:
        """Digest of what a trial has left; None when that is nothing, or it failed since."""
        row, draft = self.board.get(name), self._left(name)
        return self._draft(row).digest if row and row.state in ENDED and draft else None

    def _left(self, name: str) -> dict[str, Any] | None:
        return self.patiently(lambda: get_draft(self.store, self.prefix(name), self.run.attempt))

    def _draft(self, trial: Trial) -> Manifest:
        draft = self._left(trial.trial)
        if draft is None:
            raise RunFailed(f"trial {trial.trial} left no result in the store")
        return Manifest.create("draft", files_of(draft), kind="gan", created="1970-01-01T00:00:00.000000Z")

    def publish(self, winner: Trial, metrics: list[dict[str, Any]]) -> Manifest:
        plan = self.source.plan_of(winner.params)
        about = {"sweep": self.run_id, "trial": winner.trial, "params": winner.params, **self._ancestry(winner)}
        plan = replace(plan, facts={**plan.facts, **about})
        output, where = self.job.publishes, self.prefix(winner.trial)
        return publish(plan, self.session, self.run, output.artifact, output.aliases, where=where, metrics=metrics)

    def _ancestry(self, winner: Trial) -> dict[str, Any]:
        """Population based training: whose state the winner went on from, and the values from there on."""
        decided = sorted(self.director.member(winner.trial).decided.items())
        copies = [{"nimg": at, "from": d.source, "params": d.params} for at, d in decided if d.verdict == "copied"]
        return {"copied": copies} if copies else {}

    def forget(self) -> None:
        """Trials' checkpoints, and what was said while they ran: what is worth keeping is published."""
        for trial in self.board:
            Checkpoints(self.store, self.prefix(trial), attempt=self.run.attempt).clear()
            for folder in ("answers", "told"):
                discard(self.store, [info.key for info in self.store.list(f"runs/{self.prefix(trial)}/{folder}/")])


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
