"""The datasets behind the runs: facts from the records; pictures where the images are on this machine, unchanged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.inputs import dataset_of
from cluster.runs import RunRecord
from jobs.reporting.family import Family
from jobs.reporting.reader import Reader
from jobs.reporting.words import as_data_spec, data_label
from tlgan.errors import TlganError
from tlgan.grid import png_bytes, to_grid
from tlgan.naming import ArtifactRef
from tlgan.recipe import DataSpec
from tlgan.registry import SOURCES
from tlgan.report import DataFacts

log = logging.getLogger("tlgan.report")
MAX_IMAGES = 20_000  # of a folder that would have to be decoded for a picture
MAX_BYTES = 256 << 20  # of a dataset artifact that would have to be fetched for one
CARD = (4, 8)


@dataclass(frozen=True)
class Data:
    """A dataset as a run used it. `digest` is the content's, `node` what the lineage calls it (an artifact's manifest)."""

    spec: DataSpec
    facts: dict[str, Any]
    digest: str
    node: str
    images: Any = None

    @property
    def label(self) -> str:
        return data_label(self.spec)

    @property
    def count(self) -> int:
        return int(self.facts["count"])

    def sheet(self, rows: int, cols: int) -> bytes | None:
        """A grid of randomly chosen images, always the same ones."""
        if self.images is None:
            return None
        chosen = np.random.default_rng(0).permutation(len(self.images))[: rows * cols]
        return png_bytes(to_grid(self.images[chosen], cols=min(cols, len(chosen))))

    def part(self) -> DataFacts:
        labels = {name: n for name, n in (self.facts.get("labels") or {}).items() if n}
        return DataFacts(
            name=self.label,
            count=self.count,
            resolution=self.facts.get("resolution"),
            channels=self.facts.get("channels"),
            digest=self.digest,
            labels=labels or None,
            skipped=tuple((name, reason) for name, reason in self.facts.get("skipped") or ()),
            png=self.sheet(*CARD),
        )


def datasets_of(reader: Reader, family: Family) -> list[Data]:
    """Every dataset once, in the order of its first use."""
    found: dict[str, Data] = {}
    for record in family.members:
        for spec, facts, entry, size in _uses(reader, record):
            if entry["digest"] not in found:
                data = _data(reader, spec, facts, entry, size)
                if data:
                    found[entry["digest"]] = data
    return list({data.digest: data for data in reversed(found.values())}.values())[::-1]


def _uses(
    reader: Reader, record: RunRecord
) -> Iterator[tuple[DataSpec, dict[str, Any] | None, dict[str, str], tuple[int, int | None]]]:
    """(spec, recorded facts, entry of the inputs, resolution and channels) of each dataset that a run reads."""
    recipe = record.recipe or {}
    model = recipe.get("model", {})
    named = [("data", recipe.get("data"), "data"), ("reference", recipe.get("evaluation", {}).get("data"), None)]
    if record.kind == "evaluate":
        named = [("reference", record.spec.get("data"), "reference")]
    for role, written, known in named:
        entry, spec = record.inputs.get(role), as_data_spec(written)
        facts = record.facts.get(known) if known else None
        if entry and spec:
            if spec.artifact:
                spec = spec.model_copy(update={"artifact": entry["ref"]})
            size = facts or {"resolution": model.get("resolution", 32), "channels": model.get("channels")}
            yield spec, facts, entry, (size["resolution"], size["channels"])


def _data(
    reader: Reader, spec: DataSpec, facts: dict[str, Any] | None, entry: dict[str, str], size: tuple[int, int | None]
) -> Data | None:
    manifest = reader.manifest(entry["ref"], entry["digest"]) if spec.artifact else None
    digest = facts["digest"] if facts else None if spec.artifact else entry["digest"]
    dataset = None
    if _is_at_hand(spec, facts, manifest):
        try:
            dataset = dataset_of(spec, size[0], reader.artifacts, size[1])
        except (TlganError, OSError) as error:
            log.info("no pictures of %s: %s", entry["ref"], error)
    if dataset is not None and digest not in (None, dataset.digest):
        log.info("no pictures of %s: its images have changed since", entry["ref"])
        dataset = None
    if dataset is not None:
        return Data(spec, facts or dataset.facts, dataset.digest, entry["digest"], dataset.images)
    return Data(spec, facts, facts["digest"], entry["digest"]) if facts else None


def _is_at_hand(spec: DataSpec, facts: dict[str, Any] | None, manifest: Any) -> bool:
    """The images can be had without a network, and without long work."""
    if spec.artifact:
        return manifest is not None and manifest.size <= MAX_BYTES
    about = SOURCES.facts(str(spec.source).partition(":")[0])
    if about.get("argument"):
        return False
    if about.get("path"):
        few = facts is not None and facts["count"] <= MAX_IMAGES
        return few and spec.path is not None and Path(spec.path).expanduser().exists()
    return True


def name_of_node(ref: str) -> str:
    """The words for a dataset or artifact in a lineage."""
    try:
        return ArtifactRef.parse(ref).name
    except TlganError:
        return ref
