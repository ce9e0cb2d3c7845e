"""The graph of artifacts and datasets from the result back to everything it was made from."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from cluster.runs import RunRecord
from jobs.reporting.datasets import Data, name_of_node
from jobs.reporting.family import Family
from jobs.reporting.reader import Reader
from jobs.reporting.words import better_of, metric_title
from tlgan.manifest import Manifest, Parent
from tlgan.report import LineageNode
from tlgan.report.html import count, number
from tlgan.shapes import Resolution, sides

GRID_PAD = 2


def lineage_of(reader: Reader, family: Family, data: list[Data]) -> tuple[LineageNode, ...]:
    """Outputs of the runs that the report is about, with all ancestors; a run that made nothing yet stands for itself."""
    by_node = {one.node: one for one in data}
    nodes: dict[str, LineageNode] = {}

    def add(parent: Parent | None, manifest: Manifest | None) -> None:
        digest = manifest.digest if manifest else parent.digest if parent else ""
        if digest in nodes:
            return
        nodes[digest] = _artifact(reader, manifest, by_node) if manifest else _outside(parent, by_node)
        for above in manifest.parents if manifest else ():
            add(above, None if above.external else reader.manifest(above.ref, above.digest))

    for record in family.own:
        entries = [("", output) for output in record.outputs] or list(record.inputs.items())
        for role, entry in entries:
            parent = Parent.model_construct(role=role, ref=entry["ref"], digest=entry["digest"], external=True)
            add(parent, reader.manifest(entry["ref"], entry["digest"]))
        if not record.outputs and record.kind not in ("evaluate", "generate"):
            nodes[record.id] = _run(record)
    return tuple(nodes.values())


def _artifact(reader: Reader, manifest: Manifest, data: dict[str, Data]) -> LineageNode:
    known = data.get(manifest.digest)
    return LineageNode(
        id=manifest.digest,
        kind=manifest.kind,
        label=manifest.name,
        digest=manifest.digest,
        parents=tuple((parent.role, parent.digest) for parent in manifest.parents),
        note=_note(manifest),
        png=known.sheet(2, 2) if known else corner(reader.file(manifest, "grid.png"), _resolution(manifest)),
    )


def _outside(parent: Parent | None, data: dict[str, Data]) -> LineageNode:
    """A source of data, or an artifact that the store no longer has."""
    assert parent is not None
    known = data.get(parent.digest)
    label = known.label if known else name_of_node(parent.ref)
    note = count(known.count, "image") if known else "" if " " in parent.ref else "not in this store"
    kind = "dataset" if known or parent.role in ("data", "reference") else "artifact"
    return LineageNode(parent.digest, kind, label, parent.digest, note=note, png=known.sheet(2, 2) if known else None)


def _run(record: RunRecord) -> LineageNode:
    parents = tuple((role, entry["digest"]) for role, entry in record.inputs.items())
    return LineageNode(record.id, "run", record.name, parents=parents, note=record.state)


def _note(manifest: Manifest) -> str:
    """`64 kimg, KID 0.0052`: how much it was trained and the first number it was measured with."""
    words = []
    if manifest.kind == "dataset" and "count" in manifest.facts:
        words.append(count(manifest.facts["count"], "image"))
    if isinstance(manifest.facts.get("nimg"), int):
        words.append(f"{number(round(manifest.facts['nimg'] / 1000, 1))} kimg")
    measured: list[dict[str, Any]] = [row for row in manifest.metrics if better_of(row["name"])]
    if measured:
        words.append(f"{metric_title(measured[0]['name'])} {number(float(measured[0]['value']))}")
    return ", ".join(words)


def _resolution(manifest: Manifest) -> Resolution | None:
    value = (manifest.recipe or {}).get("model", {}).get("resolution")
    return value if isinstance(value, int | list) else None


def corner(png: bytes | None, resolution: Resolution | None, images: int = 2) -> bytes | None:
    """The first `images` x `images` of a sample grid; None without a grid."""
    if png is None or resolution is None:
        return None
    down, across = (images * (side + GRID_PAD) - GRID_PAD for side in sides(resolution))
    try:
        with Image.open(io.BytesIO(png)) as sheet:
            buffer = io.BytesIO()
            sheet.crop((0, 0, min(across, sheet.width), min(down, sheet.height))).save(buffer, format="PNG")
    except OSError:
        return None
    return buffer.getvalue()
