"""Where to start a fine-tuning from, and how: published models by the distance of their images to the data, and past runs.

A model is near when the images it draws cover the target's (`divergence` of `tlgan.metrics.statistics`), and fit when they
are like its own training images (`misfit`, a Fréchet distance): a network that was trained badly adapts badly, however
near. The order is by the geometric mean of the two, which tests/bench/recommend.py measured as better than either.

How to transfer is taken from the past runs whose target was nearest to the data, and from
published practice where a store has none.
"""

from __future__ import annotations

import math
import statistics as averages
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cluster.inputs import dataset_of
from cluster.past import PastResult
from cluster.statistics import of_artifact, of_dataset, stored
from cluster.store import ArtifactStore
from tlgan.errors import DataError, NotFound, TlganError
from tlgan.manifest import Manifest
from tlgan.metrics.statistics import DISTANCES, FeatureStatistics
from tlgan.recipe import DataSpec, ModelSpec
from tlgan.registry import blocks_at

if TYPE_CHECKING:
    from tlgan.metrics.features import Extractor

DEFAULT = "fit"
ORDERS = (DEFAULT, *DISTANCES)
FEW, SOME = 1000, 10_000  # images


@dataclass(frozen=True)
class Start:
    """A published model as a starting point. `distance` decides the order; None when `problem` says why it can't be one.

    `misfit` is None where the model's training images are not to be had any more.
    """

    ref: str
    digest: str
    made: str
    arch: str
    resolution: int | list[int]
    distance: float | None = None
    distances: dict[str, float] = field(default_factory=dict)
    misfit: float | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Advice:
    """Values for a fine-tuning's spec by dotted path, and why these."""

    settings: dict[str, Any]
    basis: str
    runs: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def startable(artifacts: ArtifactStore, published: Iterable[Manifest]) -> list[Manifest]:
    """GANs with both networks and a recipe: of each name its newest version and those that an alias points at."""
    by_name: dict[str, list[Manifest]] = {}
    for manifest in published:
        if manifest.kind == "gan" and manifest.recipe and {"G_ema", "D"} <= {_top(f.path) for f in manifest.files}:
            by_name.setdefault(manifest.name, []).append(manifest)
    found: dict[str, Manifest] = {}
    for name, versions in by_name.items():
        aliased = {alias.digest for alias in artifacts.aliases(name).values()}
        for manifest in versions:
            if manifest is versions[-1] or manifest.digest in aliased:
                found[manifest.digest] = manifest
    return list(found.values())


def _top(path: str) -> str:
    return path.partition("/")[0]


def rank(
    artifacts: ArtifactStore,
    candidates: Iterable[Manifest],
    dataset_at: Callable[[Any], Any],
    extractor: Extractor,
    by: str = DEFAULT,
    say: Callable[[str], None] = lambda text: None,
) -> list[Start]:
    """The candidates, best first; those that can't serve come last, each with its problem.

    `by`: `fit`, or one of the distances alone. A model whose misfit is not known counts with the median of the others.
    `dataset_at(resolution)` prepares the target as a fine-tuning of a model of that resolution would see it.
    """
    seen: dict[Any, FeatureStatistics | TlganError] = {}
    starts = []
    for manifest in candidates:
        model = ModelSpec.model_validate((manifest.recipe or {})["model"])
        start = Start(manifest.ref, manifest.digest, _made(manifest), model.arch, model.resolution)
        key = str(model.resolution)
        if key not in seen:
            seen[key] = _target(artifacts, dataset_at, model.resolution, extractor)
        target = seen[key]
        try:
            if isinstance(target, TlganError):
                raise target
            say(f"looking at {manifest.ref}")
            source = of_artifact(artifacts, manifest, extractor)
            distances = {name: distance(source, target) for name, distance in DISTANCES.items()}
        except TlganError as error:
            starts.append(replace(start, problem=error.message))
            continue
        misfit = _misfit(artifacts, manifest, source, extractor)
        starts.append(replace(start, distances=distances, misfit=misfit))
    known = [start.misfit for start in starts if start.misfit is not None]
    usual = averages.median(known) if known else 1.0
    starts = [replace(start, distance=_order(start, by, usual)) for start in starts]
    return sorted(starts, key=lambda s: (s.distance is None, s.distance or 0.0, s.ref))


def _target(
    artifacts: ArtifactStore, dataset_at: Callable[[Any], Any], resolution: Any, extractor: Extractor
) -> FeatureStatistics | TlganError:
    try:
        return of_dataset(artifacts.store, dataset_at(resolution), extractor)
    except (DataError, NotFound) as error:
        return error


def _order(start: Start, by: str, usual: float) -> float | None:
    if start.problem is not None:
        return None
    if by != DEFAULT:
        return start.distances[by]
    return math.sqrt(start.distances["divergence"] * (usual if start.misfit is None else start.misfit))


def _misfit(
    artifacts: ArtifactStore, manifest: Manifest, drawn: FeatureStatistics, extractor: Extractor
) -> float | None:
    """Fréchet distance of what the model draws to its training images; these are read again if their statistics are lost."""
    content = manifest.facts.get("data", {}).get("digest")
    own = stored(artifacts.store, f"images-{content}", extractor) if content else None
    if own is None and content:
        recipe = manifest.recipe or {}
        model = ModelSpec.model_validate(recipe["model"])
        try:
            spec = DataSpec.model_validate(recipe["data"])
            if spec.sharded:  # too much to be fetched for this
                return None
            dataset = dataset_of(spec, model.resolution, artifacts, manifest.facts.get("channels"))
        except (TlganError, ValueError):
            return None
        own = of_dataset(artifacts.store, dataset, extractor) if dataset.digest == content else None
    return None if own is None else DISTANCES["frechet"](drawn, own)


def _made(manifest: Manifest) -> str:
    if any(parent.role == "init_from" for parent in manifest.parents):
        return "fine-tuned"
    return "imported" if "origin" in manifest.facts else "blended" if "blend" in manifest.facts else "pretrained"


def advise(
    artifacts: ArtifactStore, found: Iterable[PastResult], target: FeatureStatistics, extractor: Extractor, images: int
) -> Advice:
    """How to fine-tune: as did best on the nearest past target on which several ways were tried, else by practice."""
    contests: dict[tuple[str, str, str], list[PastResult]] = {}
    for one in found:
        if one.source and "transfer.method" in one.settings:
            contests.setdefault((one.target, one.contest, one.metric), []).append(one)
    near = []
    for (content, _, _), group in contests.items():
        ways = {_way(one) for one in group}
        past = stored(artifacts.store, f"images-{content}", extractor)
        if len(ways) > 1 and past is not None:
            near.append((DISTANCES["frechet"](past, target), group))
    if not near:
        return practice(images)
    distance, group = min(near, key=lambda pair: (pair[0], -len(pair[1])))
    return _from_past(group, distance)


def _way(one: PastResult) -> tuple[Any, ...]:
    return tuple(one.settings.get(f"transfer.{name}") for name in ("method", "freeze_d", "freeze_g"))


def _from_past(group: list[PastResult], distance: float) -> Advice:
    """Ways are compared by the median of their results, so that one lucky seed does not decide."""
    ways: dict[tuple[Any, ...], list[PastResult]] = {}
    for one in group:
        ways.setdefault(_way(one), []).append(one)
    lower = group[0].better_is_lower
    medians = {way: averages.median(one.value for one in tried) for way, tried in ways.items()}
    way = (min if lower else max)(medians, key=medians.__getitem__)
    best = (min if lower else max)(ways[way], key=lambda one: one.value)
    others = [value for other, value in medians.items() if other != way]
    runner_up = (min if lower else max)(others)
    basis = (
        f"{len(group)} past results on {best.target_name} (Fréchet distance {distance:.3g} to this data): "
        f"median {best.metric} {medians[way]:.4g} against {runner_up:.4g} of the next way"
    )
    runs = sorted({one.run for one in ways[way] if one.run})
    return Advice(best.settings, basis, runs)


def practice(images: int) -> Advice:
    """Initial values where nothing was tried yet, by the number of images.

    Frozen lower layers of D (Mo et al. 2020, FreezeD) and DiffAugment (Zhao et al. 2020) for few images; less of both for
    more. The budget grows with the data and is bounded: with few images, longer training only memorises.
    """
    if images < FEW:
        settings: dict[str, Any] = {"transfer.method": "freeze", "transfer.freeze_d": 2, "transfer.freeze_g": 0}
        settings |= {"augment.name": "diffaugment", "train.kimg": 64.0}
        size = f"fewer than {FEW}"
    elif images < SOME:
        settings = {"transfer.method": "freeze", "transfer.freeze_d": 1, "transfer.freeze_g": 0}
        settings |= {"augment.name": "diffaugment", "train.kimg": 200.0}
        size = f"{FEW} to {SOME}"
    else:
        settings = {"transfer.method": "finetune", "augment.name": "none", "train.kimg": 1000.0}
        size = f"at least {SOME}"
    basis = f"practice for {size} images; no past run in this store compares ways on data with known statistics"
    return Advice({**settings, "train.batch_size": 32 if images < FEW else 64}, basis)


def fitted(advice: Advice, model: ModelSpec) -> dict[str, Any]:
    """The advice's settings with freeze depths that the model's networks have."""
    settings = dict(advice.settings)
    for name in ("freeze_d", "freeze_g"):
        if depth := settings.get(f"transfer.{name}"):
            blocks = blocks_at(model.resolution, model.arch, name[-1].upper())
            settings[f"transfer.{name}"] = min(depth, blocks - 1)
    return settings


def finetune_spec(name: str, parent: str, data: DataSpec, settings: dict[str, Any]) -> dict[str, Any]:
    """A spec of kind finetune, as a person would write it."""
    sections: dict[str, Any] = {}
    for path, value in settings.items():
        section, _, field_name = path.partition(".")
        sections.setdefault(section, {})[field_name] = value
    head = {"version": 1, "kind": "finetune", "name": name, "init_from": {"artifact": parent}}
    return {**head, "data": data.model_dump(mode="json", exclude_unset=True), **sections}
