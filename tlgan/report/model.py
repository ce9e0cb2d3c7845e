"""What a report shows: plain frozen dataclasses, JSON-able, that know nothing about where the data came from.

Every part but the title may be missing. Units: `kimg` thousands of images seen, `nimg` images, seconds.
Numbers may be NaN or infinite; they survive `to_json` / `from_json` as the words "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, TypeAdapter

State = Literal["pending", "running", "succeeded", "failed", "stopped"]
Better = Literal["min", "max"]


@dataclass(frozen=True)
class Part:
    """Base of all parts: how they are turned into JSON (bytes as base64, dates and numbers as they stand)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings", extra="forbid"
    )


@dataclass(frozen=True)
class Picture(Part):
    """A PNG of `tlgan.grid.png_bytes`; grids at scale 1, for the page enlarges them. `alt`: its words for the blind."""

    png: bytes
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Frame(Part):
    """The sample grid on the run's fixed latents after `kimg`."""

    png: bytes
    kimg: float


@dataclass(frozen=True)
class Curve(Part):
    """A number over kimg: `kimg` and `values` have equal length, kimg does not fall."""

    name: str
    kimg: tuple[float, ...]
    values: tuple[float, ...]
    better: Better | None = None

    def __post_init__(self) -> None:
        if len(self.kimg) != len(self.values):
            raise ValueError(f'curve "{self.name}": {len(self.kimg)} kimg for {len(self.values)} values')


@dataclass(frozen=True)
class RunSection(Part):
    """One training run. All `losses` share a chart, each of `metrics` has its own."""

    name: str
    kind: str = ""
    state: State = "succeeded"
    reason: str | None = None
    kimg: float | None = None
    kimg_planned: float | None = None
    seconds: float | None = None
    workers: int | None = None
    losses: tuple[Curve, ...] = ()
    metrics: tuple[Curve, ...] = ()
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Axis(Part):
    """How a parameter is drawn. `choices`: the values of a category axis, in order; None: those that occur."""

    name: str
    scale: Literal["linear", "log", "category"] = "linear"
    choices: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class TrialRow(Part):
    """One trial. `final`: a finalist's objective measured again with more samples. `png`: on the common latents."""

    trial: str
    state: State = "succeeded"
    objective: float | None = None
    nimg: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    final: float | None = None
    png: bytes | None = None
    reason: str | None = None
    stopped_early: bool = False


@dataclass(frozen=True)
class SweepSection(Part):
    """A sweep. `rows` stand best first, as the tuner ranks them. `published`: the trial that became the artifact.

    `importance`: parameters and the shares of the objective's variance they explain, see `tlgan.report.importance`.
    """

    name: str
    objective: str
    mode: Better = "min"
    rows: tuple[TrialRow, ...] = ()
    axes: tuple[Axis, ...] | None = None
    published: str | None = None
    note: str = ""
    importance: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class LineageNode(Part):
    """An artifact or dataset. `parents`: (role, id of the parent node), as ("init_from", "glyphs32")."""

    id: str
    kind: str
    label: str
    digest: str | None = None
    parents: tuple[tuple[str, str], ...] = ()
    note: str = ""
    png: bytes | None = None


@dataclass(frozen=True)
class MetricRow(Part):
    """One number with its protocol; `gate` as written in the spec ("< 0.05"), `passed` its result."""

    name: str
    value: float
    protocol: dict[str, Any] = field(default_factory=dict)
    better: Better | None = None
    gate: str | None = None
    passed: bool | None = None


@dataclass(frozen=True)
class Evaluation(Part):
    title: str
    rows: tuple[MetricRow, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class DataFacts(Part):
    """What was found in a dataset. `skipped`: (file, reason). `labels`: name -> images, or None without labels."""

    name: str
    count: int
    resolution: int | list[int] | None = None
    channels: int | None = None
    digest: str | None = None
    labels: dict[str, int] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    png: bytes | None = None


@dataclass(frozen=True)
class Document(Part):
    """A text shown in a fold: a recipe or spec in YAML."""

    title: str
    text: str


@dataclass(frozen=True)
class Command(Part):
    """A command line to type, without a prompt sign."""

    title: str
    command: str


@dataclass(frozen=True)
class HeadlineNumber(Part):
    """One of the two to five numbers that sum the work up: `("KID", 0.021, "held-out digits, 2000 samples")`."""

    label: str
    value: float | str
    note: str = ""


@dataclass(frozen=True)
class ReportData(Part):
    """All that one page shows. `outcome`: one or two plain sentences. `created`: UTC, ISO 8601."""

    title: str
    created: str = ""
    state: State = "succeeded"
    outcome: str = ""
    reason: str | None = None
    samples: Picture | None = None
    targets: Picture | None = None
    numbers: tuple[HeadlineNumber, ...] = ()
    lineage: tuple[LineageNode, ...] = ()
    runs: tuple[RunSection, ...] = ()
    sweeps: tuple[SweepSection, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    data: tuple[DataFacts, ...] = ()
    recipes: tuple[Document, ...] = ()
    commands: tuple[Command, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; PNGs are base64 text. Text that is no Unicode (names of odd files) gets a `?`."""
        adapter = TypeAdapter(type(self))
        dumped: dict[str, Any] = json.loads(adapter.dump_json(_mapped(self, _encodable)))
        return dumped

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises pydantic's ValidationError, a ValueError, with the place of the mistake."""
        return TypeAdapter(cls).validate_json(json.dumps(value))

    def without_pictures(self) -> Self:
        """The same report with every PNG emptied: the data alone."""
        bare: Self = _mapped(self, lambda leaf: b"" if isinstance(leaf, bytes) else leaf)
        return bare


def _encodable(leaf: Any) -> Any:
    return leaf.encode("utf-8", "replace").decode() if isinstance(leaf, str) else leaf


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every leaf of its dataclasses, mappings (keys too) and sequences changed."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value)})
    if isinstance(value, Mapping):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return change(value)
