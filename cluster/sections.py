"""The parts of a spec that say how a job runs and is searched, not what is trained (that is `tlgan.recipe`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from cluster.references import StoreName
from tlgan import registry
from tlgan.recipe import MAX_SEED, PositiveFloat, Section, check_metrics


class ResourcesSpec(Section):
    """What a run asks of the cluster."""

    workers: int = Field(0, ge=0, le=4096, description="data-parallel processes; 0: in this process, without Ray")
    cpus_per_worker: int = Field(1, ge=1, le=4096)
    gpus_per_worker: float = Field(0, ge=0, le=64)


class CheckpointSpec(Section):
    every_kimg: PositiveFloat | None = Field(None, description="default: a tenth of train.kimg")
    keep: int = Field(2, ge=1, le=1000, description="the newest so many are kept")


class GridSpec(Section):
    """The grid of samples on fixed latents, drawn while training."""

    every_kimg: PositiveFloat | None = Field(None, description="default: at every checkpoint")
    rows: int = Field(6, ge=1, le=64)
    cols: int = Field(8, ge=1, le=64)


class OutputSpec(Section):
    artifact: StoreName = Field(..., description="name under which the result is published")
    aliases: list[StoreName] = Field([], description="aliases moved to it, besides latest")


class SearchSpec(Section):
    """Which points of the space are tried. A grid is walked in order, up to `trials` points."""

    algo: Literal["random", "grid"] = "random"
    include_base: bool = Field(
        True, description="random: the first trial has the base's own values, if the space has them"
    )
    trials: int = Field(8, ge=1, le=100_000)
    parallel: int = Field(1, ge=1, le=4096, description="trials that run at a time")
    seed: int = Field(0, ge=0, le=MAX_SEED)


class EarlyStopSpec(Section):
    """Stop hopeless trials: at grace_kimg, and at eta times that and so on, the best 1/eta go on."""

    scheduler: Literal["asha", "none"] = "asha"
    grace_kimg: PositiveFloat | None = Field(None, description="no trial stops before; default: kimg / 8")
    eta: int = Field(3, ge=2, le=100)


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
