"""What can be known to fail before anything starts, although every field is fine on its own. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cluster.document import Document, Path
from cluster.fields import default_at
from cluster.sections import worker_range
from tlgan import methods, registry, shapes
from tlgan.errors import SpecError, did_you_mean
from tlgan.naming import ArtifactRef
from tlgan.recipe import unmeasurable

Finding = tuple[str, str, str | None]
"""Dotted path inside the job, message, hint."""


@dataclass(frozen=True)
class Made:
    """What is known of a stage's result. `kind` is `gan`, `classifier`, or None when it publishes nothing."""

    kind: str | None = None
    resolution: shapes.Resolution | None = None
    channels: int | None = None
    arch: str | None = None


@dataclass(frozen=True)
class Scope:
    """Where a job stands. `stages`: what `{stage: x}` may name (None outside a pipeline); `loose`: inside a search,
    where fields may be idle; `open`: stage references are somebody else's to check."""

    stages: Mapping[str, Made] | None = None
    loose: bool = False
    open: bool = False


@dataclass(frozen=True)
class View:
    """Reads of a spec that may be wrong in parts: None for what is absent or was refused."""

    document: Document
    at: Path
    model: type[BaseModel]
    refused: frozenset[Path] = frozenset()

    def written(self, path: str) -> Any:
        """The value in the file, unless it was refused."""
        parts = tuple(path.split("."))
        if any(bad[: len(parts)] == parts[: len(bad)] for bad in self.refused):
            return None
        return self.document.get(self.at + parts)

    def raw(self, path: str) -> Any:
        return self.document.get(self.at + tuple(path.split(".")))

    def get(self, path: str) -> Any:
        """The value in the file, or else the default."""
        parts = tuple(path.split("."))
        value = self.written(path)
        return default_at(self.model, parts) if value is None and self.raw(path) is None else value


def findings(view: View, scope: Scope) -> Iterator[Finding]:
    """Every check that concerns the job's kind. Checks skip what they lack."""
    yield from _numbers(view)
    yield from _references(view)
    yield from _stage_known(view, scope)
    yield from _batch(view)
    yield from _sizes(view, scope)
    yield from _channels(view, scope)
    yield from _freezing(view, scope)
    yield from _method(view, scope)
    yield from _networks(view, scope)
    yield from _gates(view)
    yield from _measurable(view)
    yield from _sharded(view)
    yield from _search(view)


def _has(view: View, name: str) -> bool:
    return name in view.model.model_fields


def _numbers(view: View) -> Iterator[Finding]:
    """`true` equals 1, so pydantic takes it where one of a few numbers is expected."""
    for path in ("version", "data.channels", "model.channels"):
        if isinstance(value := view.raw(path), bool):
            yield path, f"expected a number, received {str(value).lower()}", None


def _references(view: View) -> Iterator[Finding]:
    for path in ("data.artifact", "evaluation.data.artifact"):
        yield from _reference(path, view.written(path))
    for path in ("evaluation.extractor", "extractor"):
        name, _, argument = str(view.written(path) or "").partition(":")
        if name == "classifier":
            yield from _reference(path, argument)


def _reference(path: str, text: Any) -> Iterator[Finding]:
    if text:
        try:
            ArtifactRef.parse(str(text))
        except SpecError as error:
            yield path, error.problems[0].message, error.problems[0].hint


def input_path(view: View) -> str | None:
    """`init_from` or `target`, whichever the kind has."""
    return next((name for name in ("init_from", "target") if _has(view, name)), None)


def parent_of(view: View, scope: Scope) -> Made:
    path = input_path(view)
    stage = view.written(f"{path}.stage") if path else None
    return (scope.stages or {}).get(str(stage), Made())


def _stage_known(view: View, scope: Scope) -> Iterator[Finding]:
    path = input_path(view)
    stage = view.written(f"{path}.stage") if path else None
    if stage is None or scope.open:
        return
    if scope.stages is None:
        hint = "outside a pipeline name an artifact: {artifact: name:alias}"
        yield f"{path}.stage", f'there is no pipeline to look up stage "{stage}" in', hint
    elif stage not in scope.stages:
        known = ", ".join(scope.stages)
        yield f"{path}.stage", f'unknown stage "{stage}"; expected one of: {known}', did_you_mean(stage, scope.stages)
    elif (kind := scope.stages[stage].kind) != "gan":
        made = f"publishes a {kind}" if kind else "publishes nothing"
        yield f"{path}.stage", f'expected a stage that makes a GAN; "{stage}" {made}', None


def _batch(view: View) -> Iterator[Finding]:
    if not _has(view, "train"):
        return
    batch, workers = view.get("train.batch_size"), (worker_range(view.get("resources.workers")) or (0, 0))[1]
    if isinstance(batch, int) and workers and batch % workers:
        below, above = batch // workers * workers, (batch // workers + 1) * workers
        hint = f"write {below} or {above}" if below else f"write {above}"
        message = f"expected a multiple of resources.workers ({workers}), received {batch}"
        yield "train.batch_size", message, hint


def resolution_of(view: View, scope: Scope) -> shapes.Resolution | None:
    """Size of the networks' images in pixels, as far as it is known."""
    written = _size(view, "model.resolution")
    size = written or parent_of(view, scope).resolution or _size(view, "data.resolution")
    if size is None and _has(view, "init_from"):
        return None
    return size or view.get("model.resolution")


def _size(view: View, path: str) -> shapes.Resolution | None:
    written = view.written(path)
    return None if written is None else shapes.check(written)


def arch_of(view: View, scope: Scope) -> str | None:
    """The family of the networks, as far as it is known."""
    if arch := view.written("model.arch") or parent_of(view, scope).arch:
        return str(arch) if arch in registry.ARCHS else None
    return None if _has(view, "init_from") or not _has(view, "model") else view.get("model.arch")


def _sizes(view: View, scope: Scope) -> Iterator[Finding]:
    data, parent = _size(view, "data.resolution"), parent_of(view, scope).resolution
    model = _size(view, "model.resolution")
    if data and (model or parent) and data != (model or parent):
        whose = "as model.resolution" if model else "the size of the parent's images"
        yield "data.resolution", f"expected {model or parent}, {whose}; received {data}", None
    elif model and parent and model != parent:
        yield "model.resolution", f"expected {parent}, the size of the parent's images; received {model}", None
    elif data and not model and _has(view, "loss") and not _has(view, "init_from") and (arch := view.get("model.arch")):
        reason = shapes.misfit(data, registry.ARCHS.facts(arch)["resolutions"])
        yield from [("data.resolution", f"{arch} {reason}", None)] if reason else ()


def channels_of(view: View, scope: Scope) -> int | None:
    """Channels of the images, as far as they are known."""
    return view.written("model.channels") or parent_of(view, scope).channels or _data_channels(view)


def _data_channels(view: View) -> int | None:
    name = str(view.written("data.source") or "").partition(":")[0]
    known = registry.SOURCES.facts(name).get("channels") if name in registry.SOURCES else None
    return view.written("data.channels") or known


def _channels(view: View, scope: Scope) -> Iterator[Finding]:
    data, model, parent = _data_channels(view), view.written("model.channels"), parent_of(view, scope).channels
    if data and model and data != model:
        given = f"as data.channels; received {model}" if view.written("data.channels") else None
        source = f"as the images of {view.written('data.source')} have; received {model}"
        yield "model.channels", f"expected {data}, {given or source}", f"data.channels: {model} converts the images"
    elif parent and model and parent != model:
        yield "model.channels", f"expected {parent}, as the parent's networks; received {model}", None
    elif parent and (own := view.written("data.channels")) and own != parent:
        yield "data.channels", f"expected {parent}, as the parent's networks; received {own}", None


def _freezing(view: View, scope: Scope) -> Iterator[Finding]:
    if not _has(view, "transfer"):
        return
    resolution, arch, method = resolution_of(view, scope), arch_of(view, scope), view.get("transfer.method")
    idle = bool(method) and not registry.TRANSFERS.facts(method).get("freezes") and not scope.loose
    for name in ("freeze_d", "freeze_g"):
        depth = view.raw(f"transfer.{name}")
        if type(depth) is not int or depth <= 0:
            continue
        blocks = registry.blocks_at(resolution, arch, name[-1].upper()) if resolution else None
        if blocks and depth >= blocks:
            why = f"a {resolution} px network has {blocks} blocks, one must stay trainable"
            yield f"transfer.{name}", f"expected at most {blocks - 1} ({why}), received {depth}", None
        elif idle:
            hint = "write method: freeze"
            yield f"transfer.{name}", f"expected 0, for the method {method} freezes nothing; received {depth}", hint


def _method(view: View, scope: Scope) -> Iterator[Finding]:
    """The transfer method fits the networks and has the options given. In a search over methods options may be idle."""
    if not _has(view, "transfer") or not (method := view.get("transfer.method")):
        return
    arch = arch_of(view, scope)
    if arch and (reason := methods.misfit(method, arch)):
        yield "transfer.method", reason, None
    given = {name: view.raw(f"transfer.{name}") for name in methods.OPTIONS}
    for name in [] if scope.loose else methods.idle(method, given):
        yield f"transfer.{name}", f"{methods.lacks(method, name)}; leave it out", None


def _networks(view: View, scope: Scope) -> Iterator[Finding]:
    """What is asked of the networks is something that they have."""
    arch = arch_of(view, scope)
    if view.written("loss.path_length") and arch and not registry.ARCHS.facts(arch).get("styles"):
        yield "loss.path_length", f"path_length is for networks with styles; {arch} has none", None
    for name in (view.written("metrics") or []) if view.written("model.conditional") else []:
        if name in registry.METRICS and "critic" in registry.owners_of([name]):
            yield "metrics", f"{name} asks D about images without labels; a conditional one can't say", None


def _gates(view: View) -> Iterator[Finding]:
    gate, metrics = view.written("gate"), view.get("metrics")
    for metric in gate if isinstance(gate, dict) else ():
        if metric not in registry.METRICS:
            known = ", ".join(registry.METRICS)
            hint = did_you_mean(metric, registry.METRICS)
            yield f"gate.{metric}", f'unknown metric "{metric}"; expected one of: {known}', hint
        elif metrics and metric not in metrics:
            yield f"gate.{metric}", f"{metric} is not measured", f"add it to metrics: [{', '.join([*metrics, metric])}]"


def _measurable(view: View) -> Iterator[Finding]:
    """Whether the extractor can tell what the metrics ask of it."""
    at = "evaluation." if _has(view, "evaluation") else ""
    metrics, spec = view.get("metrics"), view.get(f"{at}extractor")
    if not isinstance(metrics, list) or not isinstance(spec, str):
        return
    name = spec.partition(":")[0]
    if name not in registry.EXTRACTORS:
        return
    for number, metric in enumerate(metrics):
        if metric not in registry.METRICS:
            continue
        inputs = registry.METRICS.facts(metric)["inputs"]
        facts = registry.EXTRACTORS.facts(name)
        if not facts.get("classes", True) and any(one.endswith(".classes") for one in inputs):
            yield (
                f"metrics.{number}",
                f"{metric} needs classes, {name} knows none",
                "use extractor: embedded or inception",
            )
        own = view.get(f"{at}perceptual") == "extractor"
        if own and facts.get("weights") and {"path.lengths", "diversity.pairs"} & set(inputs):
            hint = f"write {at}perceptual: lpips:/path/to/the/folder, or use extractor: embedded"
            yield f"metrics.{number}", f"{name} gives no distances for {metric}", hint


def _sharded(view: View) -> Iterator[Finding]:
    """What is measured while training on a sharded dataset has images to be measured against on every node."""
    at = "base." if isinstance(view.raw("base"), dict) else ""
    if view.raw(f"{at}data.sharded") is not True or not (at or _has(view, "evaluation")):
        return
    metrics, guards = view.raw(f"{at}metrics"), view.raw(f"{at}guards.metrics")
    named = [*(metrics if isinstance(metrics, list) else []), *(guards if isinstance(guards, dict) else [])]
    named += [view.raw(f"{at}checkpoint.best"), *([view.get("objective.metric")] if at else [])]
    known = [name for name in named if isinstance(name, str) and name in registry.METRICS]
    artifact, reference = view.raw(f"{at}data.artifact"), f"{at}evaluation.data"
    if reason := unmeasurable(known, artifact, bool(view.raw(reference)), view.raw(f"{reference}.artifact")):
        yield f"{at}data.sharded", reason, None


def _search(view: View) -> Iterator[Finding]:
    if not _has(view, "search"):
        return
    trials, finalists = view.get("search.trials"), view.get("finalists")
    if trials and finalists and finalists > trials:
        yield "finalists", f"expected at most search.trials ({trials}), received {finalists}", None
    grace, budget = view.written("early_stop.grace_kimg"), view.raw("base.train.kimg")
    searched = isinstance(space := view.raw("space"), dict) and "train.kimg" in space
    if isinstance(budget, int | float) and grace and not searched and grace > budget:
        message = f"expected at most the base's train.kimg ({budget:g}), received {grace:g}"
        yield "early_stop.grace_kimg", message, None
