"""Training runs and trials as sections: their curves from events, their films from the sample grids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cluster.runs import RunRecord, State
from jobs.reporting.reader import Event, Reader
from jobs.reporting.words import better_of
from tlgan.report import Curve, Frame, RunSection
from tlgan.report.prepare import MAX_FRAMES, evenly

LOSSES = {"loss_g": "G", "loss_d": "D", "loss": "classifier"}
TRAINING = ("pretrain", "finetune", "classifier")
Points = dict[int, float]


@dataclass
class History:
    """What is left of a run's events once every restart has taken back what was done twice. Points are by nimg."""

    losses: dict[str, Points] = field(default_factory=dict)
    metrics: dict[str, Points] = field(default_factory=dict)
    grids: set[int] = field(default_factory=set)
    nimg: int = 0
    total: int | None = None
    workers: int | None = None
    seconds: float | None = None


def history_of(events: Iterable[Event]) -> History:
    """Where a step was done again after a restart, the last counts."""
    history = History()
    for event in events:
        kind, nimg = event["type"], event.get("nimg", 0)
        if kind == "started":
            history = History(total=event.get("total"), workers=event.get("workers"))
        elif kind == "resumed":
            _forget_after(history, nimg)
        elif kind in ("progress", "trained", "metric", "grid"):
            history.nimg = max(history.nimg, nimg)
            history.seconds = event.get("seconds", history.seconds)
            if kind == "grid":
                history.grids.add(nimg)
            if kind == "metric":
                history.metrics.setdefault(event["name"], {})[nimg] = _float(event["value"])
            for name, value in event.get("stats", {}).items():
                if name.startswith("loss"):
                    history.losses.setdefault(name, {})[nimg] = _float(value)
    return history


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _forget_after(history: History, nimg: int) -> None:
    for group in (history.losses, history.metrics):
        for name, points in group.items():
            group[name] = {at: value for at, value in points.items() if at <= nimg}
    history.grids = {at for at in history.grids if at <= nimg}
    history.nimg = nimg


def run_section(reader: Reader, record: RunRecord) -> RunSection:
    """A pretraining, fine-tuning or classifier run."""
    history = history_of(reader.events(record.id))
    planned = (record.recipe or {}).get("train", {}).get("kimg")
    return RunSection(
        name=record.name,
        kind=record.kind,
        state=record.state,
        reason=reason_of(record),
        kimg_planned=planned,
        frames=frames(reader, record.id, history),
        **_common(history, seconds_of(record) if record.kind == "classifier" else None),
    )


def trial_section(reader: Reader, sweep: RunRecord, row: dict[str, Any], role: str) -> RunSection:
    """One trial of a sweep, with `role` saying why it is shown."""
    prefix = f"{sweep.id}/trials/{row['trial']}"
    history = history_of(reader.events(prefix))
    state: State = "succeeded" if stopped_early(row) else row["state"]
    return RunSection(
        name=f"{sweep.name}, trial {row['trial']}",
        kind=role,
        state=state,
        reason=row.get("reason") if row["state"] == "failed" else None,
        kimg_planned=(sweep.recipe or {}).get("train", {}).get("kimg"),
        frames=frames(reader, prefix, history),
        **_common(history, None),
    )


def stopped_early(row: dict[str, Any]) -> bool:
    return bool(row["state"] == "stopped")


def _common(history: History, seconds: float | None) -> dict[str, Any]:
    metrics = [_curve(name, points, better_of(name)) for name, points in history.metrics.items()]
    return {
        "kimg": min(history.nimg, history.total or history.nimg) / 1000 if history.nimg else None,
        "seconds": history.seconds or seconds,
        "workers": history.workers,
        "losses": tuple(_curve(LOSSES.get(name, name.removeprefix("loss_")), p) for name, p in history.losses.items()),
        "metrics": tuple(curve for curve in metrics if len(curve.kimg) > 1),
    }


def _curve(name: str, points: Points, better: Any = None) -> Curve:
    order = sorted(points)
    return Curve(name, tuple(at / 1000 for at in order), tuple(points[at] for at in order), better)


def frames(reader: Reader, run: str, history: History) -> tuple[Frame, ...]:
    """The sample grids that belong to `history`; of long films, frames at even distances."""
    keys = reader.runs.grids(run)
    chosen = evenly([nimg for nimg in keys if nimg in history.grids], MAX_FRAMES)
    pictures = reader.objects([keys[nimg] for nimg in chosen])
    return tuple(Frame(png, nimg / 1000) for nimg, png in zip(chosen, pictures, strict=True) if png)


def seconds_of(record: RunRecord) -> float | None:
    """From the start of the last attempt to its end; None while it runs."""
    if not (record.started and record.finished):
        return None
    return (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()


def is_abandoned(record: RunRecord) -> bool:
    return record.state == "running" and record.process_is_alive is False


def reason_of(record: RunRecord) -> str | None:
    if is_abandoned(record):
        return "The process that drove this run is gone. Running the same spec again resumes it."
    return record.reason
