"""One training as a plain value that can be sent to any process, and the function that does it there.

The same function runs in this process, in each Ray Train worker and in a Ray Tune trial. Weights never travel through Ray:
rank 0 puts them into the store and leaves a *draft*, a list of files by digest, that the driver publishes.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.checkpoints import Checkpoints
from cluster.drafts import get_draft, keep_draft, pin_name, put_draft
from cluster.events import EventWriter
from cluster.fence import Fence
from cluster.inputs import dataset_of, images_of
from cluster.patience import PATIENCE, patiently
from cluster.sections import GuardsSpec
from cluster.store import ArtifactStore, Store, open_store
from tlgan.manifest import FileEntry
from tlgan.recipe import Recipe

log = logging.getLogger("tlgan.task")
Event = dict[str, Any]


@dataclass(frozen=True)
class GanTask:
    """All a process needs to know to take part. `run` is the prefix below `runs/`; `objective` makes drafts best-so-far,
    better than `best` where that is given.

    `attempt`: which of the run; once a later one has begun, this one can leave nothing in the store any more.
    `patience`: seconds to wait for a store that is away, before the training and with its result.
    `start`: the run and nimg of a checkpoint in the store to go on from, be it another run's (see `tlgan.train.train`).
    """

    run: str
    store: str
    recipe: dict[str, Any]
    workdir: str
    parent: str | None = None
    extractor_ref: str | None = None
    checkpoint_every_kimg: float | None = None
    keep: int = 2
    grid_every_kimg: float | None = None
    grid: tuple[int, int] = (6, 8)
    evaluate_at: tuple[int, ...] = ()
    threads: int | None = None
    checkpoints_to_store: bool = True
    checkpoint_when_measured: bool = False
    start: tuple[str, int] | None = None
    objective: tuple[str, str] | None = None
    give_up_after: int | None = None  # images without an improvement of the objective after which training ends
    selects: bool = False  # a run that publishes the best by its objective, and goes on from it; not a trial
    guards: dict[str, Any] | None = None
    best: float | None = None
    endpoint: str | None = None  # of an S3 server; keys come from each node's own environment
    device: str | None = None  # default: a GPU where there is one
    attempt: int = 1
    launch: str = ""  # of Ray workers: another one each time they are started
    preemptible: bool = False  # Ray's nodes may be taken away: workers ask Ray whether that is about to happen
    patience: float = PATIENCE

    def open_store(self) -> Store:
        return open_store(self.store, endpoint=self.endpoint)


@dataclass
class TaskHooks:
    """What a launcher adds: a listener for events, a stop signal, and what to do with each objective measured (True: end)."""

    listener: Callable[[Event], None] | None = None
    should_stop: Callable[[], bool] = lambda: False
    measured: Callable[[int, dict[str, float]], bool | None] = lambda nimg, values: None


def run_gan(task: GanTask, hooks: TaskHooks | None = None) -> bool:
    """Train, evaluate, checkpoint and leave a draft in the store. False when it was stopped before the end.

    Rank 0 alone knows when a training ended for want of improvement; to the others it was stopped.
    """
    import torch

    from cluster.statistics import at_publication
    from tlgan.distributed import World
    from tlgan.train import Hooks, train

    hooks = hooks or TaskHooks()
    if task.threads:
        torch.set_num_threads(task.threads)
    world = World.current(task.device)
    recipe = Recipe.model_validate(task.recipe)
    artifacts = ArtifactStore(task.open_store())
    workdir = Path(task.workdir)
    fence = Fence(artifacts.store, task.run, task.attempt)
    checkpoints = Checkpoints(artifacts.store, task.run, task.keep, task.attempt, fence)

    def fetch() -> tuple[Any, Path | None]:
        dataset = images_of(recipe, artifacts, world)
        return dataset, artifacts.pull(task.parent) if task.parent else None

    dataset, parent = patiently(fetch, "what the training starts from", task.patience)
    if task.checkpoints_to_store:
        once_per_node(lambda: fetch_newest(checkpoints, workdir / "checkpoints", task.patience), world)
    adopt = fetch_start(task, artifacts.store, world) if task.start else None
    writer = EventWriter(artifacts.store, task.run, hooks.listener)
    desk = _Desk(task, recipe, artifacts, writer, hooks, fence, checkpoints)
    try:
        result = train(
            without_places(recipe),
            dataset,
            schedule_of(task, recipe),
            workdir,
            parent=parent,
            adopt=adopt,
            evaluator=evaluator_of(task, recipe, artifacts) if recipe.metrics else None,
            guards=GuardsSpec.model_validate(task.guards or {}).build(),
            world=world,
            hooks=Hooks(
                report=desk.report,
                should_stop=hooks.should_stop,
                saved=desk.saved,
                measured=desk.measured,
            ),
        )
        finished = result.finished or desk.had_enough
        if world.is_main and finished:
            desk.finish(result)
            if recipe.metrics and not task.objective:
                at_publication(
                    artifacts,
                    recipe.evaluation.extractor,
                    task.extractor_ref,
                    None if recipe.data.sharded else dataset,
                    result.networks["G_ema"],
                    desk.entries,
                )
    finally:
        if world.is_main:
            writer.close()
    return finished


def without_places(recipe: Recipe) -> Recipe:
    """`recipe` but for where the images lie: a run whose images have moved goes on from its checkpoints."""
    nowhere = {"path": None, "labels": None}
    reference = recipe.evaluation.data
    evaluation = {"data": reference.model_copy(update=nowhere)} if reference else {}
    changes = {
        "data": recipe.data.model_copy(update=nowhere),
        "evaluation": recipe.evaluation.model_copy(update=evaluation),
    }
    return recipe.model_copy(update=changes)


def once_per_node(fetch: Callable[[], None], world: Any) -> None:
    """Brings something from the store to each node's disk before any rank looks for it."""
    import os

    if os.environ.get("LOCAL_RANK", "0") == "0":
        fetch()
    world.barrier()


def fetch_newest(checkpoints: Checkpoints, root: Path, patience: float) -> None:
    """The newest sound checkpoint of the store, if this node has none as new; what went bad here is no checkpoint."""
    from tlgan.checkpoint import drop_damaged

    drop_damaged(root)
    patiently(lambda: checkpoints.fetch_newer(root), "the newest checkpoint", patience)


def fetch_start(task: GanTask, store: Store, world: Any) -> Path:
    """The checkpoint `task.start` on this node's disk."""
    assert task.start is not None
    (run, nimg), root = task.start, Path(task.workdir) / "start"
    once_per_node(lambda: Checkpoints(store, run, attempt=task.attempt).fetch(nimg, root), world)
    return root / f"ckpt-{nimg:012d}"


def schedule_of(task: GanTask, recipe: Recipe) -> Any:
    from tlgan.train import Schedule

    total = round(recipe.train.kimg * 1000)
    checkpoint = round(1000 * (task.checkpoint_every_kimg or recipe.train.kimg / 10))
    grid = round(1000 * task.grid_every_kimg) if task.grid_every_kimg else max(checkpoint, 1)
    evaluate = task.evaluate_at or _marks(recipe.evaluation.every_kimg, checkpoint, total)
    return Schedule(
        total=total,
        checkpoint_every=max(checkpoint, 1) if task.checkpoints_to_store else 0,
        checkpoint_when_measured=task.checkpoint_when_measured,
        grid_every=grid,
        evaluate_at=evaluate,
        keep=task.keep or 1,
        grid=task.grid,
    )


def _marks(every_kimg: float | None, checkpoint: int, total: int) -> tuple[int, ...]:
    every = round(every_kimg * 1000) if every_kimg else checkpoint
    return tuple(range(every, total, every)) if every else ()


def evaluator_of(task: GanTask, recipe: Recipe, artifacts: ArtifactStore) -> Callable[..., Any]:
    """Measures on all ranks together; a value does not depend on their number. Extractor and reference load once."""
    from tlgan.metrics.extractors import open_extractor
    from tlgan.metrics.measure import measure
    from tlgan.metrics.pictures import Generated
    from tlgan.registry import owners_of

    spec, owners = recipe.evaluation, owners_of(recipe.metrics)
    loaded: dict[str, Any] = {}
    training = recipe.data.artifact if "training" in owners else None
    wanted = {task.extractor_ref, (spec.data or recipe.data).artifact, training} - {None}

    def fetch() -> dict[str | None, Path]:
        return {ref: artifacts.pull(ref) for ref in wanted if ref}

    here = patiently(fetch, "what the metrics need", task.patience)  # now: later the store may be away

    def load(world: Any, channels: int) -> None:
        path = here.get(task.extractor_ref)
        loaded["extractor"] = open_extractor(
            spec.extractor, artifact_path=path, artifact_ref=task.extractor_ref, device=world.device
        )
        loaded["dataset"] = dataset_of(spec.data or recipe.data, recipe.model.resolution, artifacts, channels, here)
        if "training" in owners:
            loaded["training"] = dataset_of(recipe.data, recipe.model.resolution, artifacts, channels, here)

    def evaluate(G_ema: Any, world: Any, D: Any = None) -> list[Any]:
        if not loaded:
            load(world, G_ema.config["channels"])
        return measure(
            recipe.metrics,
            Generated(G_ema, spec.samples, spec.seed),
            seed=spec.seed,
            ema=recipe.train.ema_kimg > 0,
            flipped=recipe.data.flip,
            critic=D,
            perceptual=spec.perceptual,
            world=world,
            **loaded,
        )

    return evaluate


class _Desk:
    """Rank 0's side: events and grids to the store, drafts of what was trained."""

    def __init__(
        self,
        task: GanTask,
        recipe: Recipe,
        artifacts: ArtifactStore,
        writer: EventWriter,
        hooks: TaskHooks,
        fence: Fence,
        checkpoints: Checkpoints,
    ) -> None:
        self.task, self.recipe, self.artifacts, self.writer, self.hooks = task, recipe, artifacts, writer, hooks
        self.fence, self.checkpoints = fence, checkpoints
        self.best, self.best_nimg = task.best, 0
        self.had_enough = False
        self.coverage: dict[str, Any] | None = None
        self.last_grid: bytes | None = None
        self.entries: list[FileEntry] = []

    def report(self, event: Event) -> None:
        if event["type"] == "grid":
            self.last_grid = grid_png(event["images"], event["shape"])
            self.writer.grid(event["nimg"], self.last_grid)
            return
        if event["type"] == "transfer":
            self.coverage = event["coverage"]
        if event["type"] == "resumed" and self.task.selects:
            self._take_up()
        if event["type"] in ("started", "resumed") and self.task.launch:
            event = {**event, "launch": self.task.launch}
        self.writer(event)

    def saved(self, path: Path, nimg: int) -> None:
        """A checkpoint is on this node's disk: bring it to the store. Called in a thread of the loop's saver."""
        begun = time.monotonic()
        if self.checkpoints.push(path, nimg):
            self.writer({"type": "stored", "nimg": nimg, "seconds": round(time.monotonic() - begun, 4)})

    def _take_up(self) -> None:
        """The best so far of a run that goes on, if its networks are still there."""
        draft = get_draft(self.artifacts.store, self.task.run, self.task.attempt)
        if draft and keep_draft(self.artifacts, self.task.run, self.task.attempt, draft):
            assert self.task.objective is not None, "what selects has an objective"
            name, _ = self.task.objective
            values = [row["value"] for row in draft["metrics"] if row["name"] == name]
            self.best, self.best_nimg = (values[0] if values else None), draft["nimg"]
            self.coverage = draft.get("coverage")

    def measured(self, learner: Any, nimg: int, values: list[Any]) -> bool:
        """With an objective: keep the best networks so far, then tell the tuner, which may end a trial on the spot."""
        numbers = {value.name: value.value for value in values}
        if self.task.objective:
            name, mode = self.task.objective
            if is_better(numbers[name], self.best, mode):
                self.best, self.best_nimg = numbers[name], nimg
                self.draft(learner.networks if self.task.selects else used_again(learner.networks), nimg, values)
            self._lose_patience(name, nimg)
        self.writer.flush()
        return bool(self.hooks.measured(nimg, numbers)) or self.had_enough

    def _lose_patience(self, name: str, nimg: int) -> None:
        self.had_enough = self.task.give_up_after is not None and nimg - self.best_nimg >= self.task.give_up_after
        if self.had_enough:
            self.writer(
                {"type": "enough", "nimg": nimg, "metric": name, "best": self.best, "best_nimg": self.best_nimg}
            )

    def finish(self, result: Any) -> None:
        self.coverage = result.coverage
        if not self.task.objective or self.best is None:
            self.draft(result.networks, result.nimg, result.metrics)
        self.writer({"type": "trained", "nimg": result.nimg, "seconds": result.seconds})

    def draft(self, networks: dict[str, Any], nimg: int, values: list[Any]) -> None:
        """Uploads the networks and writes down what an artifact of them would consist of. Raises `Conflict` when the run
        was taken over by a later attempt."""
        from tlgan.artifact import save_networks
        from tlgan.random import latents
        from tlgan.sampling import draw

        with tempfile.TemporaryDirectory(prefix="tlgan-draft-") as folder:
            save_networks(Path(folder), networks, type="gan")
            rows, cols = self.task.grid
            z = latents(self.recipe.train.seed, 0, rows * cols, self.recipe.model.latent_dim)
            png = grid_png(draw(networks["G_ema"], z), self.task.grid)
            (Path(folder) / "grid.png").write_bytes(png)
            document = {
                "nimg": nimg,
                "metrics": [value.to_json() for value in values],
                "coverage": self.coverage,
                "channels": networks["G_ema"].config["channels"],
            }
            patiently(lambda: self._leave(Path(folder), document, png), f"run {self.task.run}", self.task.patience)

    def _leave(self, folder: Path, document: dict[str, Any], png: bytes) -> None:
        self.entries = self.artifacts.stage(folder, pin=pin_name(self.task.run, self.task.attempt))
        document = {
            "files": [entry.model_dump(exclude_none=True) for entry in self.entries],
            **document,
        }
        self.fence()
        self.artifacts.store.put(f"runs/{self.task.run}/grid.png", png)
        put_draft(self.artifacts.store, self.task.run, self.task.attempt, document)


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Whether a measured objective beats the best so far. One that is no number never does."""
    if not math.isfinite(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)


def used_again(networks: dict[str, Any]) -> dict[str, Any]:
    """What a trial keeps. G_ema draws, and a transfer starts from it and D; G itself matters to a resume alone, and a trial
    that was lost is run again."""
    return {which: network for which, network in networks.items() if which != "G"}


def grid_png(images: Any, shape: tuple[int, int]) -> bytes:
    from tlgan.grid import png_bytes, to_grid

    return bytes(png_bytes(to_grid(images, *shape)))
