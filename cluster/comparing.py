"""What differs between two published versions: files and blocks, recipe, metrics, facts.

Files are told apart by digest. Only blocks (safetensors) and JSON files that changed are fetched, through the node's
cache; nothing else is parsed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.store import ArtifactStore
from cluster.store.transfer import in_parallel
from cluster.tensors import compare_blocks
from tlgan import registry
from tlgan.errors import IntegrityError
from tlgan.manifest import FileEntry, Manifest
from tlgan.metrics.protocol import MetricValue, unlike_fields

Row = dict[str, Any]
MAX_JSON = 8 << 20


def changed_files(a: Manifest, b: Manifest) -> list[tuple[FileEntry, FileEntry]]:
    """The blocks and JSON files of both versions whose bytes differ: what `compare` fetches."""
    of_b = {entry.path: entry for entry in b.files}
    both = [(entry, of_b[entry.path]) for entry in a.files if entry.path in of_b]
    return [pair for pair in both if pair[0].sha256 != pair[1].sha256 and _is_read(pair)]


def _is_read(pair: tuple[FileEntry, FileEntry]) -> bool:
    path = pair[0].path
    return path.endswith(".safetensors") or (path.endswith(".json") and max(one.size for one in pair) <= MAX_JSON)


def compare(artifacts: ArtifactStore, a: Manifest, b: Manifest, values: bool = True) -> Row:
    """JSON-able. Without `values` nothing is fetched, and blocks are only known to differ.

    `files`, `blocks`, `documents` (JSON files), `recipe`, `metrics`, `facts`, `parents`; `same`: it is one version.
    """
    pairs = changed_files(a, b) if values else []
    fetched = in_parallel(artifacts.file, [entry for pair in pairs for entry in pair], artifacts.threads)
    local = {pair[0].path: (fetched[2 * n], fetched[2 * n + 1]) for n, pair in enumerate(pairs)}
    return {
        "a": _about(a),
        "b": _about(b),
        "same": a.digest == b.digest,
        "files": _files(a, b),
        "blocks": _blocks(a, b, local),
        "documents": [_document(path, *local[path]) for path in local if path.endswith(".json")],
        "recipe": differences(a.recipe, b.recipe),
        "metrics": _metrics(a, b),
        "facts": differences(a.facts, b.facts),
        "parents": differences(_parents(a), _parents(b)),
    }


def _about(manifest: Manifest) -> Row:
    facts = {"files": len(manifest.files), "bytes": manifest.size, "has_recipe": manifest.recipe is not None}
    return {"ref": manifest.ref, "digest": manifest.digest, "kind": manifest.kind, "created": manifest.created, **facts}


def _parents(manifest: Manifest) -> Row:
    found: dict[str, list[str]] = {}
    for parent in manifest.parents:
        found.setdefault(parent.role, []).append(f"{parent.ref} ({parent.digest[:16]})")
    return {role: refs[0] if len(refs) == 1 else refs for role, refs in found.items()}


def _files(a: Manifest, b: Manifest) -> list[Row]:
    """A row a path of either: `change` is unchanged, changed, only_a or only_b; `same_as` a path with the same bytes."""
    of_a, of_b = ({entry.path: entry for entry in one.files} for one in (a, b))
    elsewhere = {True: {entry.sha256: entry.path for entry in b.files}, False: {e.sha256: e.path for e in a.files}}
    rows = []
    for path in sorted(of_a.keys() | of_b.keys(), key=_natural):
        left, right = of_a.get(path), of_b.get(path)
        row: Row = {"path": path, "change": _change(left, right)}
        row |= {"bytes_a": left and left.size, "bytes_b": right and right.size}
        only = (left or right) if left is None or right is None else None
        rows.append(row | {"same_as": only and elsewhere[right is None].get(only.sha256)})
    return rows


def _change(left: FileEntry | None, right: FileEntry | None) -> str:
    if left is None or right is None:
        return "only_b" if left is None else "only_a"
    return "unchanged" if left.sha256 == right.sha256 else "changed"


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _blocks(a: Manifest, b: Manifest, local: Mapping[str, tuple[Path, Path]]) -> list[Row]:
    rows = []
    for file in _files(a, b):
        block, dot, suffix = file["path"].rpartition(".")
        if not dot or suffix != "safetensors":
            continue
        row: Row = {"block": block, "change": file["change"], "relative_l2": None, "max_abs": None, "problem": None}
        if file["path"] in local:
            try:
                row |= compare_blocks(*local[file["path"]])
            except IntegrityError as error:
                row["problem"] = error.message
        rows.append(row)
    return rows


def _document(path: str, a: Path, b: Path) -> Row:
    try:
        left, right = (json.loads(file.read_bytes()) for file in (a, b))
        return {"path": path, "differences": differences(left, right), "problem": None}
    except (ValueError, RecursionError) as error:
        return {"path": path, "differences": [], "problem": f"can't be read as JSON: {str(error).splitlines()[0]}"}


def differences(a: Any, b: Any) -> list[Row]:
    """`path` (dotted), `change` (changed, only_a, only_b), `a` and `b` of every leaf in which two documents differ."""
    return list(_differences(a, b, ""))


def _differences(a: Any, b: Any, path: str) -> Iterator[Row]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            below = f"{path}.{key}" if path else str(key)
            if key in a and key in b:
                yield from _differences(a[key], b[key], below)
            else:
                yield {"path": below, "change": "only_a" if key in a else "only_b", "a": a.get(key), "b": b.get(key)}
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _differences(left, right, f"{path}[{number}]")
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield {"path": path, "change": "changed", "a": a, "b": b}


def _metrics(a: Manifest, b: Manifest) -> list[Row]:
    """Values that were taken alike are subtracted; others stand side by side with the fields of protocol that differ."""
    left, right = list(_values(a)), list(_values(b))
    rows = []
    for one in left[:]:
        if other := next((other for other in right if one.protocol and not unlike_fields(one, other)), None):
            rows.append(_pair(one, other, []))
            left.remove(one)
            right.remove(other)
    for one in left:
        if other := next((other for other in right if other.name == one.name), None):
            rows.append(_pair(one, other, unlike_fields(one, other) or ["protocol"]))
            right.remove(other)
        else:
            rows.append(_pair(one, None, []))
    return sorted([*rows, *(_pair(None, one, []) for one in right)], key=lambda row: str(row["name"]))


def _values(manifest: Manifest) -> Iterator[MetricValue]:
    for metric in manifest.metrics:
        value, protocol = metric.get("value"), metric.get("protocol")
        if isinstance(value, int | float) and not isinstance(value, bool):
            known = dict(protocol) if isinstance(protocol, Mapping) else {}
            yield MetricValue(str(metric.get("name")), float(value), known)


def _pair(a: MetricValue | None, b: MetricValue | None, unlike: list[str]) -> Row:
    """`difference` is b - a, `better` the side with the better value; both None where they can't be compared."""
    one = a or b
    assert one is not None
    row: Row = {"name": one.name, "a": a and a.value, "b": b and b.value, "difference": None, "better": None}
    row["unlike"] = {
        field: {side: value.protocol.get(field) for side, value in (("a", a), ("b", b)) if value} for field in unlike
    }
    if a and b and not unlike and math.isfinite(a.value) and math.isfinite(b.value):
        row["difference"] = b.value - a.value
        if one.name in registry.METRICS and a.value != b.value:
            lower = "a" if a.value < b.value else "b"
            low_is_good = registry.METRICS.facts(one.name)["mode"] == "min"
            row["better"] = lower if low_is_good else {"a": "b", "b": "a"}[lower]
    return row
