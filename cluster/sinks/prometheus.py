"""Our own metrics among Ray's, at each node's metrics port in Prometheus's format, with `ray_` before their names.

tlgan_images, tlgan_kimg_per_second, tlgan_stat{stat}, tlgan_metric{metric}, tlgan_checkpoint_images,
tlgan_checkpoint_age_seconds (since one was last brought to the store), tlgan_checkpoint_stall_seconds,
tlgan_store_seconds (bringing a checkpoint there), tlgan_restarts_total{cause}. All have the labels `run` and `kind`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from cluster.sinks import About, Event

LABELS = ("run", "kind")
GAUGES = {
    "tlgan_images": ("Images seen.", ()),
    "tlgan_kimg_per_second": ("Thousands of images a second.", ()),
    "tlgan_stat": ("Losses and other statistics of the last tick.", ("stat",)),
    "tlgan_metric": ("Metrics as they were last measured.", ("metric",)),
    "tlgan_checkpoint_images": ("Images seen at the newest checkpoint in the store.", ()),
    "tlgan_checkpoint_age_seconds": ("Seconds since a checkpoint was last brought to the store.", ()),
    "tlgan_checkpoint_stall_seconds": ("Seconds that training stood still for the last checkpoint.", ()),
    "tlgan_store_seconds": ("Seconds that bringing the last checkpoint to the store took.", ()),
}


class RayMetrics:
    """Does nothing while this process is not connected to Ray."""

    def __init__(self, about: About) -> None:
        self.tags = {"run": about.run, "kind": about.kind}
        self._made: dict[str, Any] = {}
        self._stored = time.monotonic()

    def __call__(self, event: Event) -> None:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        if event["type"] == "progress":
            self._progress(event)
        elif event["type"] == "metric":
            self._set("tlgan_metric", float(event["value"]), metric=event["name"])
        elif event["type"] == "checkpoint" and "stalled" in event:
            self._set("tlgan_checkpoint_stall_seconds", event["stalled"])
        elif event["type"] == "stored":
            self._stored = time.monotonic()
            self._set("tlgan_checkpoint_images", event["nimg"])
            self._set("tlgan_store_seconds", event["seconds"])
        elif event["type"] == "lost":
            self._counter("tlgan_restarts_total", "Restarts by cause.").inc(1, {**self.tags, "cause": event["cause"]})

    def _progress(self, event: Event) -> None:
        self._set("tlgan_images", event["nimg"])
        self._set("tlgan_checkpoint_age_seconds", time.monotonic() - self._stored)
        if "img_per_s" in event:
            self._set("tlgan_kimg_per_second", event["img_per_s"] / 1000)
        for name, value in event.get("stats", {}).items():
            self._set("tlgan_stat", float(value), stat=name)

    def _set(self, name: str, value: float, **more: str) -> None:
        if name not in self._made:
            from ray.util.metrics import Gauge

            about, labels = GAUGES[name]
            self._made[name] = Gauge(name, about, tag_keys=(*LABELS, *labels))
        self._made[name].set(value, {**self.tags, **more})

    def _counter(self, name: str, about: str) -> Any:
        if name not in self._made:
            from ray.util.metrics import Counter

            self._made[name] = Counter(name, about, tag_keys=(*LABELS, "cause"))
        return self._made[name]

    def close(self) -> None:
        pass
