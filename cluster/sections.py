"""The parts of a spec that say how a job runs and is searched, not what is trained (that is `tlgan.recipe`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.gates import Gate, parse_gate
from cluster.references import StoreName
from tlgan import registry
from tlgan.recipe import MAX_SEED, NonNegativeFloat, PositiveFloat, Section, check_metrics

if TYPE_CHECKING:
    from tlgan.guards import Guards

MAX_WORKERS = 4096
_RANGE = re.compile(r"^\s*(\d{1,4})\s*\.\.\s*(\d{1,4})\s*$")


def worker_range(value: Any) -> tuple[int, int] | None:
    """The least and the most workers of `2..8`, or of a plain number; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    match = _RANGE.match(value) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _or_range(schema: dict[str, Any]) -> None:
    number = {key: schema.pop(key) for key in ("type", "minimum", "maximum")}
    schema["anyOf"] = [number, {"type": "string", "pattern": _RANGE.pattern}]


class ResourcesSpec(Section):
    """What a run asks of the cluster. With a range of workers it starts with, and goes on with, what there is room for; the
    global batch stays."""

    workers: int = Field(
        0,
        ge=0,
        le=MAX_WORKERS,
        description="data-parallel processes; 0: in this process, without Ray; 2..8: as many as there is room for",
        json_schema_extra=_or_range,
    )
    min_workers: int | None = Field(None, ge=1, le=MAX_WORKERS, description="what a range of workers begins with")
    cpus_per_worker: int = Field(1, ge=1, le=4096)
    gpus_per_worker: float = Field(0, ge=0, le=64)

    @model_validator(mode="before")
    @classmethod
    def _from_range(cls, value: Any) -> Any:
        if (
            isinstance(value, dict)
            and isinstance(value.get("workers"), str)
            and (found := worker_range(value["workers"]))
        ):
            return {**value, "workers": found[1], "min_workers": found[0]}
        return value

    @field_validator("min_workers")
    @classmethod
    def _in_order(cls, least: int | None, info: ValidationInfo) -> int | None:
        most = info.data.get("workers")
        if least is not None and most is not None and least > most:
            raise ValueError(f"expected at most {most}, the end of the range; received {least}")
        return least

    @property
    def least(self) -> int:
        """The fewest workers that the run goes on with."""
        return self.workers if self.min_workers is None else self.min_workers

    def sizes(self, batch_size: int) -> list[int]:
        """Numbers of workers among which a global batch can be divided evenly, largest first."""
        return [n for n in range(self.workers, max(self.least, 1) - 1, -1) if batch_size % n == 0]


class RetrySpec(Section):
    """How often a training on Ray is taken up again by itself, from its newest checkpoint, by what ended it."""

    crashes: int = Field(3, ge=0, le=10_000, description="restarts after a worker or its node died")
    preemptions: int = Field(100, ge=0, le=10_000, description="restarts after a node was taken away with notice")
    wait_minutes: float = Field(
        30, ge=0, le=100_000, description="for room on the cluster, and for a store that is away"
    )


class CheckpointSpec(Section):
    every_kimg: PositiveFloat | None = Field(None, description="default: a tenth of train.kimg")
    keep: int = Field(2, ge=1, le=1000, description="the newest so many are kept")
    best: str | None = Field(
        None, description="metric by which the best networks measured are kept and published; default: the last are"
    )
    patience_kimg: PositiveFloat | None = Field(
        None, description="training ends when `best` has not improved for so long; default: at train.kimg"
    )

    @field_validator("best")
    @classmethod
    def _known(cls, metric: str | None) -> str | None:
        return metric and check_metrics([metric])[0]

    @field_validator("patience_kimg")
    @classmethod
    def _has_best(cls, patience: float | None, info: ValidationInfo) -> float | None:
        if patience is not None and info.data.get("best") is None:
            raise ValueError("needs `best`, the metric that is to improve, as in best: kid")
        return patience

    @property
    def direction(self) -> str | None:
        """`min` or `max` of `best`."""
        return None if self.best is None else str(registry.METRICS.facts(self.best)["mode"])


BoundText = Annotated[str, AfterValidator(lambda text: parse_gate(text) and text)]


class GuardsSpec(Section):
    """What ends a training that goes wrong; a sweep's trial likewise. Numbers that are not finite always do."""

    metrics: dict[str, BoundText] = Field(
        {}, description='a bound on each, held whenever it is measured, as in recall: ">= 0.02" or duplicates: "< 0.5"'
    )
    statistics: dict[str, BoundText] = Field(
        {}, description='the same for statistics of training (see `tlgan events`), as in loss_d: "> 0.01"'
    )
    after_kimg: NonNegativeFloat = Field(0.0, description="bounds hold from here on")
    during_kimg: NonNegativeFloat = Field(0.0, description="a bound must be missed so long without a break; 0: once")

    @field_validator("metrics")
    @classmethod
    def _known(cls, bounds: dict[str, str]) -> dict[str, str]:
        check_metrics(list(bounds))
        return bounds

    def build(self) -> Guards:
        from tlgan.guards import Guards

        metrics, statistics = (
            [Gate(name, *parse_gate(text)) for name, text in bounds.items()]
            for bounds in (self.metrics, self.statistics)
        )
        return Guards(metrics, statistics, round(self.after_kimg * 1000), round(self.during_kimg * 1000))


class GridSpec(Section):
    """The grid of samples on fixed latents, drawn while training."""

    every_kimg: PositiveFloat | None = Field(None, description="default: at every checkpoint")
    rows: int = Field(6, ge=1, le=64)
    cols: int = Field(8, ge=1, le=64)


class OutputSpec(Section):
    artifact: StoreName = Field(..., description="name under which the result is published")
    aliases: list[StoreName] = Field([], description="aliases moved to it, besides latest")


class BudgetSpec(Section):
    """What a search may spend. When a bound is reached, no trial begins any more, and those that run end."""

    hours: PositiveFloat | None = Field(None, description="hours on the clock, over all attempts")
    core_hours: PositiveFloat | None = Field(None, description="hours times the cores that trials hold")
    gpu_hours: PositiveFloat | None = Field(None, description="hours times the GPUs that trials hold")


class PbtSpec(Section):
    """Population based training: after each interval the last trials take over the first ones' weights and vary their values."""

    every_kimg: PositiveFloat | None = Field(None, description="length of an interval; default: kimg / 8")
    quantile: float = Field(0.25, gt=0, le=0.5, description="share of trials that copy, and that are copied")
    resample: float = Field(0.25, ge=0, le=1, description="how often a value is drawn anew instead of varied")


class SearchSpec(Section):
    """Which points of the space are tried. A grid is walked in order, up to `trials` points."""

    algo: Literal["random", "grid", "tpe", "pbt"] = "random"
    include_base: bool = Field(
        True, description="but for a grid: the first trial has the base's own values, if the space has them"
    )
    trials: int = Field(8, ge=1, le=100_000)
    parallel: int = Field(1, ge=1, le=4096, description="trials that run at a time")
    seed: int = Field(0, ge=0, le=MAX_SEED)
    budget: BudgetSpec = BudgetSpec()
    pbt: PbtSpec = PbtSpec()


class EarlyStopSpec(Section):
    """Stop hopeless trials. asha: at grace_kimg, and at eta times that and so on, the best 1/eta go on. hyperband: the same in
    brackets that begin with fewer and fewer trials and longer and longer first stretches. median: every grace_kimg those that
    are worse than the median of the others' averages stop."""

    scheduler: Literal["asha", "hyperband", "median", "none"] = "asha"
    grace_kimg: PositiveFloat | None = Field(None, description="no trial stops before; default: kimg / 8")
    eta: int = Field(3, ge=2, le=100, description="asha, hyperband: one in so many goes on")


class ObjectiveSpec(Section):
    """What makes one trial better than another."""

    metric: str = "kid"
    mode: Literal["min", "max"] | None = Field(None, description="default: the metric's good direction")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        return check_metrics([metric])[0]

    @field_validator("mode")
    @classmethod
    def _sensible(cls, mode: str | None, info: ValidationInfo) -> str | None:
        if "metric" in info.data and mode not in (None, good := registry.METRICS.facts(info.data["metric"])["mode"]):
            better = "lower" if good == "min" else "higher"
            raise ValueError(f'expected "{good}", for a {better} {info.data["metric"]} is better; received "{mode}"')
        return mode

    @property
    def direction(self) -> str:
        """`min` or `max`."""
        return str(registry.METRICS.facts(self.metric)["mode"])
