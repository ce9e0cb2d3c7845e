"""From what a person wrote to what is run: references become digests once, facts of the data are looked at, impossible
requests are refused. What is pinned here decides the identity of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.code import code_digest
from cluster.inputs import dataset_of, shards_of
from cluster.job import ArtifactInput, ClassifierJob, Job, TrainingJob
from jobs.session import Session
from tlgan.canonical import digest_of
from tlgan.errors import NotFound, SpecError
from tlgan.manifest import Manifest, Parent
from tlgan.recipe import DataSpec, ModelSpec, Recipe, Section
from tlgan.registry import EXTRACTORS
from tlgan.shapes import Resolution, sides

EMBEDDED = "glyph-features"
"""Name of the classifier behind `extractor: embedded`, trained on the glyphs the first time it is asked for."""


@dataclass
class Plan:
    """A job ready to run. `identity` is everything that decides the result; `parents` goes into the manifest."""

    job: Job
    parents: list[Parent]
    identity: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    recipe: Section | None = None
    payload: dict[str, Any] = field(default_factory=dict)  # of the kind; for `execute`: never_cached, valid, repeat
    given_id: str | None = None  # of a run that was submitted, before its data was looked at

    @property
    def digest(self) -> str:
        inputs = sorted((p.role, p.digest) for p in self.parents)
        output = self.job.publishes.artifact if isinstance(self.job, TrainingJob) else None
        what = {"kind": self.job.kind, "what": self.identity, "output": output}
        return digest_of({**what, "inputs": inputs, "code": code_digest()})

    @property
    def own_id(self) -> str:
        """The id that the identity gives."""
        return f"{self.job.name}-{self.digest[:8]}"

    @property
    def run_id(self) -> str:
        return self.given_id or self.own_id

    @property
    def inputs(self) -> dict[str, dict[str, str]]:
        return {p.role: {"ref": p.ref, "digest": p.digest} for p in self.parents}


def pin_artifact(session: Session, wanted: ArtifactInput | str, role: str, kind: str) -> tuple[Manifest, Parent]:
    """The manifest behind a reference, which must be of `kind`. Raises `NotFound`, `SpecError`."""
    ref = wanted if isinstance(wanted, str) else wanted.artifact
    if ref is None:
        raise SpecError(f"{role}: a stage can only be named inside a pipeline; expected an artifact, received {wanted}")
    manifest = session.artifacts.resolve(ref)
    if manifest.kind != kind:
        raise SpecError(f"{role}: expected an artifact of kind {kind}, {ref} is of kind {manifest.kind}")
    return manifest, Parent(role=role, ref=manifest.ref, digest=manifest.digest)


def pin_data(
    session: Session, spec: DataSpec, role: str, resolution: Resolution, channels: int | None
) -> tuple[DataSpec, Any, Parent]:
    """The spec with its artifact pinned, the prepared dataset (of a sharded one, what is known of it), and the parent entry
    that names it."""
    if spec.artifact is not None:
        manifest, parent = pin_artifact(session, spec.artifact, role, "dataset")
        spec = spec.model_copy(update={"artifact": manifest.ref})
        if spec.sharded:
            from tlgan.data.sharded import Share

            return spec, Share(shards_of(spec, resolution, channels, session.artifacts)[1]), parent
        dataset = dataset_of(spec, resolution, session.artifacts, channels)
        return spec, dataset, parent
    labels = spec.labels
    if labels and spec.path and not (Path(spec.path) / labels).is_file():
        labels = _absolute(labels)
    spec = spec.model_copy(update={"path": _absolute(spec.path), "labels": labels})
    dataset = dataset_of(spec, resolution, session.artifacts, channels)
    words = [str(spec.source), spec.path or "", spec.split if spec.split != "all" else "", f"{len(dataset)} images"]
    ref = " ".join(word for word in words if word)
    return spec, dataset, Parent(role=role, ref=ref, digest=dataset.digest, external=True)


def pin_extractor(session: Session, extractor: str) -> tuple[str, Parent | None]:
    """The extractor with its classifier pinned. The embedded one is trained now if the store does not have it."""
    name, _, argument = extractor.partition(":")
    if EXTRACTORS.facts(name).get("weights"):
        return with_place(extractor), None
    if name == "embedded":
        argument = f"{EMBEDDED}:latest"
        try:
            session.artifacts.resolve(argument)
        except NotFound:
            if session.only_plans:
                raise
            from jobs.execute import execute

            execute(embedded_job(), session)
    manifest, parent = pin_artifact(session, argument, "extractor", "classifier")
    return (extractor if name == "embedded" else f"{name}:{manifest.ref}"), parent


def with_place(named: str) -> str:
    """`inception:weights.pth` with the file as other processes need it."""
    name, _, file = named.partition(":")
    return f"{name}:{_absolute(file)}" if file else named


def _absolute(path: str | None) -> str | None:
    """A local path as other processes need it: they have folders of their own."""
    return path if path is None or "://" in path else str(Path(path).expanduser().absolute())


def identity_of(recipe: Section) -> dict[str, Any]:
    """What decides the result: all of the recipe but where the images lie, for their digest is in the inputs."""
    fields = recipe.model_dump(mode="json")
    for data in (fields["data"], fields.get("evaluation", {}).get("data")):
        if data is not None:
            data.update(path=None, labels=None)
    return fields


def embedded_job() -> ClassifierJob:
    return ClassifierJob(name=EMBEDDED, data=DataSpec(source="glyphs", resolution=32))


def pin_recipe(session: Session, recipe: Recipe) -> tuple[Recipe, list[Parent], dict[str, Any]]:
    """A GAN's recipe with data, reference and extractor pinned; their parents; facts of the data."""
    model = recipe.model
    data, dataset, parent = pin_data(session, recipe.data, "data", model.resolution, model.channels)
    check_fit(model, dataset)
    dataset.order(recipe.train.batch_size, recipe.train.seed)  # refuses what can't be ordered
    parents = [parent]
    evaluation = recipe.evaluation
    if recipe.metrics:
        extractor, classifier = pin_extractor(session, evaluation.extractor)
        changes: dict[str, Any] = {"extractor": extractor, "perceptual": with_place(evaluation.perceptual)}
        if evaluation.data is not None:
            changes["data"], _, reference = pin_data(
                session, evaluation.data, "reference", model.resolution, dataset.channels
            )
            parents.append(reference)
        evaluation = evaluation.model_copy(update=changes)
        parents += [classifier] if classifier else []
    pinned = recipe.model_copy(
        update={
            "data": data,
            "evaluation": evaluation,
            "model": model.model_copy(update={"channels": dataset.channels}),
        }
    )
    return pinned, parents, dataset.facts


def check_fit(model: ModelSpec, dataset: Any) -> None:
    """The network draws what the data shows. Raises `SpecError`."""
    if sides(dataset.resolution) != sides(model.resolution):
        raise SpecError(
            f"data.resolution: the network is built for {model.resolution} px, the data has {dataset.resolution} px",
            hint=f"set data.resolution to {model.resolution}",
        )
    if model.conditional:
        dataset.classes()
    if len(dataset) < 2:
        raise SpecError(f"data: expected at least 2 images to train on, received {len(dataset)}")


def extractor_ref(parents: list[Parent]) -> str | None:
    return next((p.ref for p in parents if p.role == "extractor"), None)
