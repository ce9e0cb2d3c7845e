"""The spec file, typed: one model a kind. A job is a recipe with what surrounds it: resources, checkpoints, outputs.

Models are plain values. Reading files, overrides and errors with line numbers are in `cluster.specfile`; what pydantic
can't see in one field (a freeze depth beyond the network) is in `cluster.feasible`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, field_validator

from cluster.gates import Gate, parse_gate
from cluster.references import ArtifactInput, Reference, StoreName, check_reference, name_of
from cluster.sections import (
    CheckpointSpec,
    EarlyStopSpec,
    GridSpec,
    GuardsSpec,
    ObjectiveSpec,
    OutputSpec,
    ResourcesSpec,
    RetrySpec,
    SearchSpec,
)
from cluster.space import Space
from tlgan import shapes
from tlgan.recipe import (
    EXTRACTOR,
    MAX_SEED,
    PERCEPTUAL,
    AugmentSpec,
    ClassifierModelSpec,
    ClassifierRecipe,
    ClassifierTrainSpec,
    DataSpec,
    EvaluationSpec,
    LossSpec,
    ModelSpec,
    Name,
    Recipe,
    Section,
    TrainSpec,
    TransferSpec,
    check_metrics,
    whole_only,
)

__all__ = [
    "KINDS",
    "ArtifactInput",
    "CheckpointSpec",
    "ClassifierJob",
    "EarlyStopSpec",
    "EvaluateJob",
    "FinetuneJob",
    "Gate",
    "GenerateJob",
    "GridSpec",
    "GuardsSpec",
    "Job",
    "ObjectiveSpec",
    "OutputSpec",
    "PipelineJob",
    "PretrainJob",
    "Reference",
    "ResourcesSpec",
    "SearchSpec",
    "Space",
    "SweepJob",
    "inputs_of",
    "check_reference",
    "name_of",
]

S = TypeVar("S", bound=Section)
SinkName = Literal["tensorboard", "mlflow", "wandb"]


class Job(Section):
    """What all kinds share."""

    model_config = ConfigDict(defer_build=True)

    version: Literal[1] = Field(1, description="version of the spec format")
    kind: str
    makes: ClassVar[str | None] = None  # kind of the artifact that is published
    name: StoreName = Field(..., description="name of the job and its runs")

    def to_dict(self) -> dict[str, Any]:
        """The spec as a person would write it: JSON-able, nothing but what was given, files it named written out.

        `cluster.specfile.parse_job` makes an equal job of it.
        """
        return {"version": self.version, "kind": self.kind, **self.model_dump(mode="json", exclude_unset=True)}


class TrainingJob(Job):
    """A job that trains and publishes one artifact."""

    resources: ResourcesSpec = ResourcesSpec()
    output: OutputSpec | None = Field(None, description="default: an artifact with the job's name")
    sinks: list[SinkName] = Field([], description="trackers that are told as well: tensorboard, mlflow, wandb")

    @property
    def publishes(self) -> OutputSpec:
        return self.output or OutputSpec(artifact=self.name)


class GanJob(TrainingJob):
    """What pretraining and fine-tuning share."""

    makes = "gan"
    data: DataSpec
    augment: AugmentSpec = AugmentSpec()
    train: TrainSpec
    checkpoint: CheckpointSpec = CheckpointSpec()
    retry: RetrySpec = RetrySpec()
    guards: GuardsSpec = GuardsSpec()
    grid: GridSpec = GridSpec()
    metrics: list[str] = Field(
        [], description="taken while training, besides those that guards and checkpoint.best name"
    )
    evaluation: EvaluationSpec = EvaluationSpec()

    _metrics = field_validator("metrics")(check_metrics)

    @property
    def measured(self) -> list[str]:
        """All metrics that are taken while training."""
        best = [self.checkpoint.best] if self.checkpoint.best else []
        return list(dict.fromkeys([*self.metrics, *best, *self.guards.metrics]))


class PretrainJob(GanJob):
    """Train a pair of networks from scratch."""

    kind: Literal["pretrain"] = "pretrain"
    model: ModelSpec = ModelSpec()
    loss: LossSpec = LossSpec()

    @property
    def resolution(self) -> shapes.Resolution:
        """Size in pixels: the model's where given, else the data's, else the model's default."""
        given = "resolution" in self.model.model_fields_set
        return self.model.resolution if given else self.data.resolution or self.model.resolution

    def recipe(self) -> Recipe:
        model = changed(self.model, {"resolution": self.resolution})
        return Recipe(data=self.data, model=model, loss=self.loss, **_gan_sections(self))


class FinetuneJob(GanJob):
    """Adapt the networks of a parent artifact to new images. What `model` and `loss` leave out is as the parent's."""

    kind: Literal["finetune"] = "finetune"
    init_from: ArtifactInput = Field(..., description="the GAN to start from")
    transfer: TransferSpec = TransferSpec()
    model: ModelSpec | None = Field(None, description="differences from the parent's networks")
    loss: LossSpec | None = Field(None, description="differences from the parent's loss")

    def recipe(self, parent_model: ModelSpec, parent_loss: LossSpec) -> Recipe:
        return Recipe(
            data=self.data,
            model=changed(parent_model, given_fields(self.model)),
            loss=changed(parent_loss, given_fields(self.loss)),
            transfer=self.transfer.without_idle(),
            **_gan_sections(self),
        )


def _gan_sections(job: GanJob) -> dict[str, Any]:
    return {"augment": job.augment, "train": job.train, "metrics": job.measured, "evaluation": job.evaluation}


def given_fields(section: Section | None) -> dict[str, Any]:
    """The fields that were written, without the defaults."""
    return {} if section is None else section.model_dump(exclude_unset=True)


def changed(section: S, fields: dict[str, Any]) -> S:
    """A validated copy of `section` with `fields` replaced."""
    return type(section).model_validate({**section.model_dump(), **fields})


class ClassifierJob(TrainingJob):
    """Train a classifier on the data's labels; its features serve metrics as `classifier:<artifact>`."""

    makes = "classifier"
    kind: Literal["classifier"] = "classifier"
    data: DataSpec
    model: ClassifierModelSpec = ClassifierModelSpec()
    train: ClassifierTrainSpec = ClassifierTrainSpec()

    _whole = field_validator("data")(whole_only)

    def recipe(self) -> ClassifierRecipe:
        return ClassifierRecipe(data=self.data, model=self.model, train=self.train)


_PATH = {"type": "string", "description": "a spec file; the path is relative to this file"}


class _InFile:
    """A job written here, or the path of its file. Loading a spec puts the file's job in the path's place."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [_PATH, handler(core)]}


class SweepJob(TrainingJob):
    """Search for the best way to train `base`. Trials vary the fields named in `space`."""

    makes = "gan"
    kind: Literal["sweep"] = "sweep"
    base: Annotated[PretrainJob | FinetuneJob, Field(discriminator="kind"), _InFile()]
    space: dict[str, Space] = Field(..., min_length=1, description="path in the base spec: where its value is sampled")
    search: SearchSpec = SearchSpec()
    early_stop: EarlyStopSpec = EarlyStopSpec(scheduler="none")
    objective: ObjectiveSpec = ObjectiveSpec()
    finalists: int = Field(1, ge=1, le=100, description="best trials that are evaluated again")
    final_samples: int | None = Field(None, ge=16, le=1_000_000, description="default: twice the base's samples")


class EvaluateJob(Job):
    """Measure an artifact; hold it against a gate; promote it when it passes."""

    kind: Literal["evaluate"] = "evaluate"
    target: ArtifactInput
    data: DataSpec = Field(..., description="reference images")
    training: DataSpec | None = Field(
        None, description="what the target was trained on, for copy_rate and d_overfit; default: as its recipe says"
    )
    metrics: list[str] = Field(["fid", "kid", "precision", "recall"], min_length=1)
    samples: int = Field(1000, ge=16, le=1_000_000, description="generated images")
    extractor: str = Field("embedded", description=EXTRACTOR)
    perceptual: str = Field("extractor", description=PERCEPTUAL)
    seed: int = Field(0, ge=0, le=MAX_SEED)
    gate: dict[str, Annotated[str, AfterValidator(lambda text: parse_gate(text) and text)]] = Field(
        {}, description='a bound on each metric, as in kid: "< 0.05"'
    )
    promote: StoreName | None = Field(None, description="alias moved to the target when the gate passes")
    resources: ResourcesSpec = ResourcesSpec()

    _metrics = field_validator("metrics")(check_metrics)
    _whole = field_validator("data", "training")(whole_only)

    @field_validator("extractor")
    @classmethod
    def _known(cls, extractor: str) -> str:
        return EvaluationSpec(extractor=extractor).extractor

    @field_validator("perceptual")
    @classmethod
    def _known_distance(cls, perceptual: str) -> str:
        return EvaluationSpec(perceptual=perceptual).perceptual

    @property
    def evaluation(self) -> EvaluationSpec:
        how: dict[str, Any] = {
            "extractor": self.extractor,
            "perceptual": self.perceptual,
            "samples": self.samples,
            "seed": self.seed,
        }
        return EvaluationSpec(**how, data=self.data)

    @property
    def gates(self) -> list[Gate]:
        return [Gate(metric, *parse_gate(text)) for metric, text in self.gate.items()]


SUFFIXES = {"grid": ".png", "npz": ".npz", "png": ""}
"""Of the file that a generate job writes where it names none; a folder has none."""


class GenerateJob(Job):
    """Draw images with a published generator."""

    kind: Literal["generate"] = "generate"
    target: ArtifactInput
    n: int = Field(64, ge=1, le=10_000_000, description="number of images")
    seed: int = Field(0, ge=0, le=MAX_SEED)
    classes: list[str] = Field([], description="conditional generators: what to draw, in turn; default: as in training")
    truncation: float = Field(1.0, ge=0, le=1, description="latents are shrunk towards their mean; 1: not at all")
    format: Literal["grid", "png", "npz"] = Field("grid", description="one PNG, a folder of PNGs, or one array")
    out: str | None = Field(None, min_length=1, description="file or folder; default: the job's name")


AnyStage = PretrainJob | FinetuneJob | ClassifierJob | SweepJob | EvaluateJob | GenerateJob


class StageSpec(Section):
    """One step of a pipeline: a job, the stages it waits for, and the fields changed in it."""

    model_config = ConfigDict(defer_build=True)

    run: Annotated[AnyStage, Field(discriminator="kind"), _InFile()]
    needs: list[Name] = Field([], description="stages that must have ended before")
    set: dict[str, Annotated[Any, WithJsonSchema({})]] = Field({}, description="path in the job: its value here")


class PipelineJob(Job):
    """Stages in order of their needs. Stages that don't need each other may run at the same time."""

    kind: Literal["pipeline"] = "pipeline"
    stages: dict[Name, StageSpec] = Field(..., min_length=1)

    def order(self) -> list[str]:
        """Stage names so that each comes after the stages it needs; otherwise as written."""
        done: list[str] = []
        while len(done) < len(self.stages):
            done.append(next(s for s in self.stages if s not in done and all(n in done for n in self.stages[s].needs)))
        return done


KINDS: dict[str, type[Job]] = {
    "pretrain": PretrainJob,
    "finetune": FinetuneJob,
    "classifier": ClassifierJob,
    "sweep": SweepJob,
    "evaluate": EvaluateJob,
    "generate": GenerateJob,
    "pipeline": PipelineJob,
}


def inputs_of(job: Job) -> dict[str, ArtifactInput]:
    """The artifacts a job starts from, by dotted path in its spec. A sweep's are its base's."""
    if isinstance(job, SweepJob):
        return {f"base.{path}": value for path, value in inputs_of(job.base).items()}
    if isinstance(job, FinetuneJob):
        return {"init_from": job.init_from}
    return {"target": job.target} if isinstance(job, EvaluateJob | GenerateJob) else {}
