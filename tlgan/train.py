"""The training loop. It knows no launcher: what to tell, when to stop and where to save are handed in.

    load -> start or resume -> while images are left: step, tick, grid, evaluate, save

Runs in one process, under torchrun, in a Ray Train worker or in a Ray Tune trial, with the same numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tlgan import checkpoint
from tlgan.data.dataset import Dataset
from tlgan.data.loader import Loader
from tlgan.data.sharded import Share
from tlgan.distributed import World
from tlgan.errors import Collapsed, RunFailed, SpecError
from tlgan.guards import LOOK, Guards, check_finite, evidence, weight_norms
from tlgan.learners.gan import GanLearner
from tlgan.memory import keep_freed_memory
from tlgan.metrics.protocol import MetricValue
from tlgan.models import build_pair
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.recipe import Recipe
from tlgan.sampling import draw
from tlgan.saver import Saver
from tlgan.shapes import sides
from tlgan.transfer import start_from

Event = dict[str, Any]
Images = Dataset | Share
ASK_SECONDS = 1.0
"""How often several ranks agree on whether to stop."""
ELAPSED = "seconds since the last tick"


class Evaluator(Protocol):
    """Takes the metrics of a generator, and of a discriminator with it. All ranks call it; rank 0 gets the values."""

    def __call__(self, G_ema: Network, world: World, D: Network | None = None) -> list[MetricValue]: ...


@dataclass(frozen=True)
class Schedule:
    """When things happen, in images. An `every` of 0 means never (but `evaluate` happens at the end all the same)."""

    total: int
    checkpoint_every: int = 0
    grid_every: int = 0
    evaluate_at: tuple[int, ...] = ()
    tick_every: int = 0
    keep: int = 2
    grid: tuple[int, int] = (6, 8)
    checkpoint_when_measured: bool = False

    @staticmethod
    def marks(every_kimg: float | None, total: int) -> tuple[int, ...]:
        """Multiples of `every_kimg` up to and including the end, in images."""
        step = max(1, round((every_kimg or total / 1000) * 1000))
        return (*range(step, total, step), total)


@dataclass
class Hooks:
    """What the launcher hands in. `report` is called on rank 0 only; `saved`, on rank 0, in a thread of its own and for the
    newest checkpoint on disk.

    `measured` hears of each measurement on rank 0, once its checkpoint (if any) is saved; True ends the training there.
    """

    report: Callable[[Event], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    saved: Callable[[Path, int], None] = lambda path, nimg: None
    measured: Callable[[GanLearner, int, list[MetricValue]], bool | None] = lambda learner, nimg, values: None


@dataclass
class Result:
    """`finished` is False when `should_stop` or `measured` ended the run. `networks` are G, D and G_ema."""

    networks: dict[str, Network]
    nimg: int
    finished: bool
    metrics: list[MetricValue]
    seconds: float
    coverage: dict[str, Any] | None = field(default=None)


def train(
    recipe: Recipe,
    dataset: Images,
    schedule: Schedule,
    workdir: Path,
    *,
    parent: Path | None = None,
    adopt: Path | None = None,
    evaluator: Evaluator | None = None,
    guards: Guards | None = None,
    world: World | None = None,
    hooks: Hooks | None = None,
) -> Result:
    """Train `recipe` on `dataset`; with a transfer section, from the model directory `parent`.

    Continues from the newest checkpoint in `workdir/checkpoints` when there is one, or else from the checkpoint `adopt`, which
    may be of another recipe for the same networks: weights and moments go by parameter name, so the freeze depths may differ.
    Raises `RunFailed` when the numbers diverge, `Collapsed` when a guard ends it; a sample grid is drawn first.
    """
    world, hooks = world or World.current(), hooks or Hooks()
    keep_freed_memory()
    learner, coverage = _learner(recipe, dataset, parent, world)
    loader = Loader(
        dataset,
        recipe.train.batch_size,
        seed=recipe.train.seed,
        flip=recipe.data.flip,
        rank=world.rank,
        world_size=world.size,
        device=world.device,
    )
    with Saver(workdir / "checkpoints", schedule.keep, hooks.saved) as saver:
        run = _Run(recipe, learner, schedule, saver, world, hooks, evaluator, guards or Guards())
        nimg = run.resume(adopt)
        if nimg == 0:
            run.begin(coverage, dataset)
        per_step = recipe.train.batch_size * recipe.train.n_critic
        stopped = run.tell_again(nimg - per_step, nimg)
        batches = loader.batches(nimg // recipe.train.batch_size)
        while nimg < schedule.total and not stopped:
            before, nimg = nimg, nimg + per_step
            stats = learner.step([next(batches) for _ in range(recipe.train.n_critic)], before // per_step, nimg)
            run.tick(stats, before, nimg)
            run.draw_grid(before, nimg)
            measured = run.evaluate(before, nimg)
            stopped = run.asked_to_stop()
            run.save(before, nimg, force=stopped or nimg >= schedule.total, measured=measured)
            stopped = (measured and run.told(nimg)) or stopped
        run.told_of_all()
    return Result(learner.networks, nimg, nimg >= schedule.total, run.metrics, run.seconds, coverage)


def _learner(
    recipe: Recipe, dataset: Images, parent: Path | None, world: World
) -> tuple[GanLearner, dict[str, Any] | None]:
    classes = dataset.classes() if recipe.model.conditional else None
    if recipe.transfer is None:
        G, D = build_pair(recipe.model, dataset.channels, recipe.train.seed, classes)
        _check_resolution(G, dataset)
        return GanLearner(recipe, G, D, world), None
    assert parent is not None, "a recipe with a transfer section starts from a parent"
    start = start_from(parent, recipe, dataset.channels, classes)
    _check_resolution(start.G, dataset)
    return GanLearner(recipe, start.G, start.D, world, start.G_ema), start.coverage.to_json()


def _check_resolution(G: Network, dataset: Images) -> None:
    side = G.config["resolution"]
    if sides(dataset.resolution) != sides(side):
        raise SpecError(
            f"the images are {dataset.resolution} px and the networks {side} px",
            hint=f"set data.resolution to {side}, or leave it out",
        )


def _passes(every: int, before: int, after: int) -> bool:
    return bool(every) and before // every != after // every


def _reaches(marks: Iterable[int], before: int, after: int) -> bool:
    return any(before < mark <= after for mark in marks)


class _Run:
    """The parts of the loop that look at training without changing it."""

    def __init__(
        self,
        recipe: Recipe,
        learner: GanLearner,
        schedule: Schedule,
        saver: Saver,
        world: World,
        hooks: Hooks,
        evaluator: Evaluator | None,
        guards: Guards,
    ) -> None:
        self.recipe, self.learner, self.schedule = recipe, learner, schedule
        self.saver, self.world, self.hooks, self.evaluator, self.guards = saver, world, hooks, evaluator, guards
        self.tick_every = schedule.tick_every or max(recipe.train.batch_size, schedule.total // 100)
        self.metrics: list[MetricValue] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.steps, self.ask_every = 0, 1
        self.seconds, self.since, self.since_nimg = 0.0, time.monotonic(), 0
        self.goes_on = False
        rows, cols = schedule.grid
        self.grid_latents = latents(recipe.train.seed, 0, rows * cols, learner.G.latent_dim)

    def report(self, event: Event) -> None:
        if self.world.is_main:
            self.hooks.report(event)

    def resume(self, adopt: Path | None = None) -> int:
        """Restore the newest checkpoint, or else `adopt`; the number of images seen until then, 0 without one."""
        found = self._agreed()
        if (path := found or adopt) is None:
            return 0
        self.goes_on = found is not None
        state, meta = checkpoint.load(path, self.recipe if found else None)
        self.learner.load_state_dict(state)
        self.seconds, self.since_nimg = meta["seconds"], meta["nimg"]
        torch.set_rng_state(torch.tensor(meta["rng"][self.world.rank % len(meta["rng"])], dtype=torch.uint8))
        self.metrics = [MetricValue.from_json(row) for row in meta["metrics"]]
        self.guards.state = dict(meta.get("guards", {}))
        for name, (total, count) in meta.get("sums", {}).items() if found else ():
            self.sums[name], self.counts[name] = torch.tensor(total, device=self.world.device), count
        self.report({"type": "resumed", "nimg": meta["nimg"], **self._processes()})
        self.since = time.monotonic()
        return int(meta["nimg"])

    def _agreed(self) -> Path | None:
        """The newest checkpoint that all ranks have: a node may have written one that never reached the others.

        Raises `RunFailed` when there is none, though some rank has one.
        """
        root = self.saver.root
        checkpoint.drop_damaged(root)
        found = checkpoint.newest(root)
        own = torch.tensor([checkpoint.nimg_of(found) if found else 0], device=self.world.device)
        numbers = [int(row.item()) for row in self.world.gather_rows(own)]
        path = checkpoint.path_at(root, min(numbers))
        if self.world.agree(max(numbers) > 0 and not path.is_dir()):
            raise RunFailed(
                f"the ranks share no checkpoint in {root}: the newest are at {', '.join(map(str, numbers))} images",
                hint="every node needs the newest checkpoint: share the folder, or copy it before the start",
            )
        return path if max(numbers) > 0 else None

    def begin(self, coverage: dict[str, Any] | None, dataset: Images) -> None:
        if coverage is not None:
            self.report({"type": "transfer", "nimg": 0, "coverage": coverage})
        self.report({"type": "started", "nimg": 0, **self._processes()})
        if self.schedule.grid_every:
            self._grid(0)

    def _processes(self) -> dict[str, Any]:
        own = torch.tensor([os.getpid()], device=self.world.device)
        pids = [int(row.item()) for row in self.world.gather_rows(own)]
        told = {"total": self.schedule.total, "workers": self.world.size, "precision": self.learner.precision}
        return {**told, "pid": pids[0], "pids": pids}

    def tick(self, stats: dict[str, Tensor], before: int, nimg: int) -> None:
        """Add up a step's statistics; at a tick, average them over steps and ranks, check and report them.

        A checkpoint that is due is a tick too: it then never holds numbers that diverged.
        """
        self.steps += 1
        for name, value in stats.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        due = any(_passes(every, before, nimg) for every in (self.tick_every, self.schedule.checkpoint_every))
        if not (due or nimg >= self.schedule.total):
            return
        elapsed = time.monotonic() - self.since
        sums = {name: total / self.counts[name] for name, total in self.sums.items()}
        sums |= weight_norms(self.learner.networks)
        means = self.world.mean_over_ranks({**sums, ELAPSED: torch.tensor(elapsed, device=self.world.device)})
        self.ask_every = max(1, int(ASK_SECONDS * self.steps / max(means.pop(ELAPSED), 1e-9)))
        self.sums, self.counts, self.steps = {}, {}, 0
        with self._keeping_evidence(nimg):
            means = check_finite(nimg, means)
        self.seconds, self.since = self.seconds + elapsed, time.monotonic()
        rate = (nimg - self.since_nimg) / max(elapsed, 1e-9)
        self.since_nimg = nimg
        self.report({"type": "progress", "nimg": nimg, "img_per_s": rate, "seconds": self.seconds, "stats": means})
        with self._keeping_evidence(nimg):
            self.guards.check_statistics(nimg, means)

    @contextmanager
    def _keeping_evidence(self, nimg: int) -> Iterator[None]:
        """A guard that ends the training leaves samples of what it saw."""
        try:
            yield
        except (RunFailed, SpecError) as error:
            self._grid(nimg)
            self.report(evidence(nimg, error))
            raise

    def draw_grid(self, before: int, nimg: int) -> None:
        if _passes(self.schedule.grid_every, before, nimg) or (
            self.schedule.grid_every and nimg >= self.schedule.total
        ):
            self._grid(nimg)

    def _grid(self, nimg: int) -> None:
        if self.world.is_main:
            images = draw(self.learner.ema.module, self.grid_latents)
            self.report({"type": "grid", "nimg": nimg, "images": images, "shape": self.schedule.grid})

    def evaluate(self, before: int, nimg: int) -> bool:
        """Whether it was time to."""
        if not self._measures(before, nimg):
            return False
        assert self.evaluator is not None
        self.metrics = self.evaluator(self.learner.ema.module, self.world, self.learner.D)
        for value in self.metrics:
            self.report({"type": "metric", "nimg": nimg, **value.to_json()})
        self._check_metrics(nimg)
        return True

    def _measures(self, before: int, nimg: int) -> bool:
        marks = (*self.schedule.evaluate_at, self.schedule.total)
        return self.evaluator is not None and _reaches(marks, before, nimg)

    def tell_again(self, before: int, nimg: int) -> bool:
        """After a resume: a process that died right after the checkpoint of a measurement may not have told of it."""
        return self.goes_on and self._measures(before, nimg) and self.told(nimg)

    def _check_metrics(self, nimg: int) -> None:
        """Rank 0 has the values; a guard ends the training on all ranks, with the same words."""
        reason = ""
        try:
            self.guards.check_metrics(nimg, {value.name: value.value for value in self.metrics})
        except Collapsed as error:
            reason = error.message
        if self.guards.metrics and (reason := self.world.told_by_main(reason)):
            with self._keeping_evidence(nimg):
                raise Collapsed(reason, hint=LOOK)

    def told(self, nimg: int) -> bool:
        """Tells the launcher what was measured; whether it ends the training."""
        if self.schedule.checkpoint_when_measured:
            self.saver.flush()
        return self.world.agree(self.world.is_main and bool(self.hooks.measured(self.learner, nimg, self.metrics)))

    def asked_to_stop(self) -> bool:
        """Whether any rank is asked to stop. About once a second, at steps that all ranks agree on; alone, at each step."""
        if self.world.size > 1 and self.steps % self.ask_every:
            return False
        return self.world.agree(self.hooks.should_stop())

    def told_of_all(self) -> None:
        """Waits for the checkpoints that are on their way, and says which are there."""
        self.saver.flush()
        self._tell_written()

    def _tell_written(self) -> None:
        for saved in self.saver.written():
            told = {"stalled": round(saved.stalled, 4), "seconds": round(saved.seconds, 4)}
            self.report({"type": "checkpoint", "nimg": saved.nimg, **told})

    def save(self, before: int, nimg: int, *, force: bool, measured: bool) -> None:
        """Hands the state over to be written when it is due; says which ones were, meanwhile.

        One that nobody planned may lie between two ticks: what was added up since the last goes with it.
        """
        self._tell_written()
        every = self.schedule.checkpoint_every
        due = bool(every) and (force or _passes(every, before, nimg))
        if not due and not (measured and self.schedule.checkpoint_when_measured):
            return
        rng = [part.tolist() for part in self.world.gather_rows(torch.get_rng_state().to(self.world.device))]
        sums = self.world.mean_over_ranks(self.sums)
        if not self.world.is_main:
            return
        meta = {
            "recipe": self.recipe.digest,
            "fields": self.recipe.model_dump(mode="json"),
            "seconds": self.seconds,
            "rng": rng,
            "sums": {name: (total, self.counts[name]) for name, total in sums.items()},
            "metrics": [value.to_json() for value in self.metrics],
            "guards": self.guards.state,
        }
        self.saver.save(nimg, self.learner.state_dict(), meta)
