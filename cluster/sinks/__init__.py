"""Where a run's progress is told as well: trackers that a spec names under `sinks`, and Ray's Prometheus metrics.

A sink hears the events of one run, in the process that drives it. One that fails is dropped with a warning: what a tracker
thinks never ends a run. None logs in anywhere, unless its own environment variables say so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cluster.store import Store
from tlgan.errors import SpecError
from tlgan.registry import Entry, Table

log = logging.getLogger("tlgan.sinks")
Event = dict[str, Any]
SINKS = Table(
    "sink",
    {
        "tensorboard": Entry("cluster.sinks.tensorboard:TensorBoard", {"needs": "tensorboardX"}),
        "mlflow": Entry("cluster.sinks.mlflow:MLflow", {"needs": "mlflow-skinny"}),
        "wandb": Entry("cluster.sinks.wandb:WandB", {"needs": "wandb"}),
    },
)


@dataclass(frozen=True)
class About:
    """What a sink may know of its run. `folder`: below it, files that are not in the store."""

    run: str
    name: str
    kind: str
    recipe: dict[str, Any]
    folder: Path
    store: Store


class Sink(Protocol):
    def __init__(self, about: About) -> None: ...

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


def numbers(event: Event) -> Iterator[tuple[str, float]]:
    """Name and value of what an event measured: losses, speed, metrics."""
    if event["type"] == "progress":
        for name, value in event.get("stats", {}).items():
            yield f"train/{name}", float(value)
        if "img_per_s" in event:
            yield "speed/img_per_s", float(event["img_per_s"])
    elif event["type"] == "metric":
        yield f"metric/{event['name']}", float(event["value"])
    elif event["type"] == "checkpoint" and "stalled" in event:
        yield "speed/checkpoint_stall_s", float(event["stalled"])


def check_installed(names: list[str]) -> None:
    """Raises `SpecError` for a sink whose package is not here."""
    for name in names:
        package = SINKS.facts(name)["needs"]
        try:
            SINKS.load(name)
        except ImportError:
            raise SpecError(f"sinks: {name} needs the package {package}", hint=f"pip install {package}") from None


class Fan:
    """Hands each event on to all sinks of a run."""

    def __init__(self, sinks: dict[str, Sink]) -> None:
        self.sinks = sinks
        self._lock = threading.Lock()  # events come from the loop and from the thread that stores grids

    def __call__(self, event: Event) -> None:
        with self._lock:
            for name in list(self.sinks):
                self._try(name, lambda sink: sink(event))

    def close(self) -> None:
        with self._lock:
            for name in list(self.sinks):
                self._try(name, lambda sink: sink.close())
            self.sinks = {}

    def _try(self, name: str, what: Any) -> None:
        try:
            what(self.sinks[name])
        except Exception as error:
            log.warning("sink %s is left out from now on: %s: %s", name, type(error).__name__, error)
            del self.sinks[name]


def open_sinks(names: list[str], about: About) -> Fan:
    """The sinks that a spec names, and Ray's metrics."""
    from cluster.sinks.prometheus import RayMetrics

    opened: dict[str, Sink] = {"prometheus": RayMetrics(about)}
    for name in names:
        try:
            opened[name] = SINKS.load(name)(about)
        except Exception as error:
            log.warning("sink %s is left out: %s: %s", name, type(error).__name__, error)
    return Fan(opened)
