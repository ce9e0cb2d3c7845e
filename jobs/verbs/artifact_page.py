"""Artifacts as text: the listing, the page of one, the tree of its ancestors."""

from __future__ import annotations

import sys
from typing import Any

from jobs.output import counted, table
from jobs.verbs.words import age_text, size_text

Row = dict[str, Any]

_WIDTH = 100
_RECIPE = ("learner", "data", "model", "loss", "transfer", "augment", "train", "metrics", "evaluation")
_LONG = 60  # a value longer than this is left to --json


def listing(rows: list[Row], of_one: bool) -> str:
    """Rows of `cluster.listing`: of every artifact, or of the versions of one."""
    if not rows:
        return ""
    cells = []
    for row in rows:
        damaged = row["problem"] is not None
        size = "-" if damaged else size_text(row["bytes"])
        kind = "damaged" if damaged else row["kind"]
        line = [row["ref"], kind, size, age_text(row["created"]), _alias_cell(row)]
        cells.append(line if of_one else [*line, str(row["versions"])])
    head = ["version", "kind", "size", "created", "aliases"]
    return table(cells, head if of_one else ["newest version", *head[1:], "versions"])


def _alias_cell(row: Row) -> str:
    """Aliases of the version by name; those of other versions with the beginning of the digest they stand for."""
    here = [alias for alias, ref in row["aliases"].items() if ref == row["ref"]]
    elsewhere = [f"{alias}@{ref.partition('@')[2][:8]}" for alias, ref in row["aliases"].items() if ref != row["ref"]]
    return ", ".join(here + elsewhere) or "-"


def page(shown: Row) -> str:
    """What `ArtifactStore.show` returned, for a person."""
    logical, stored = shown["logical_bytes"], shown["stored_bytes"]
    size = f"{size_text(logical)} in {counted(len(shown['files']), 'file')}"
    shared = f"; {size_text(stored)} stored, the rest is shared" if stored < logical else ""
    top = [
        ["artifact", shown["ref"]],
        ["digest", shown["digest"]],
        ["kind", shown["kind"]],
        ["created", f"{shown['created'][:19].replace('T', ' ')} UTC, {age_text(shown['created'])}"],
        ["aliases", ", ".join(shown["aliases"]) or "none"],
        ["size", size + shared],
    ]
    parts = [_columns(top)]
    parts += _section("made from", [[p["role"], _parent_text(p)] for p in shown["parents"]])
    parts += _section("facts", [[name, _fact(name, value)] for name, value in shown["facts"].items()])
    parts += _section("metrics", [_metric(row) for row in shown["metrics"]])
    if shown["recipe"]:
        parts.append("recipe\n" + _indent(_yaml(shown["recipe"])))
    parts += _section("files", [[size_text(f["size"]).rjust(9), f["path"], f["sha256"][:16]] for f in shown["files"]])
    return "\n\n".join(parts)


def _section(title: str, rows: list[list[str]]) -> list[str]:
    return [f"{title}\n{_indent(_columns(rows))}"] if rows else []


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _parent_text(parent: Row) -> str:
    return f"{parent['ref']} (outside of the store)" if parent.get("external") else str(parent["ref"])


def _fact(name: str, value: Any) -> str:
    if isinstance(value, dict) and {"count", "resolution", "channels"} <= value.keys():
        return f"{counted(value['count'], 'image')} of {value['resolution']}x{value['resolution']}x{value['channels']}"
    if name == "coverage" and isinstance(value, dict):
        tensors = ", ".join(f"{_total(value.get(what))} {what}" for what in ("matched", "reshaped", "missing"))
        return f"{tensors} tensors of the parent's networks"
    return _short(value)


def _total(value: Any) -> int:
    """How many tensors an entry of a coverage report counts."""
    if isinstance(value, dict):
        return sum(_total(part) for part in value.values())
    return len(value) if isinstance(value, list) else int(value or 0)


def _short(value: Any) -> str:
    """One line; what would not fit is named by its size."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {_short(part)}" for key, part in value.items()) or "none"
        return text if len(text) <= _LONG else counted(len(value), "entry").replace("entrys", "entries")
    if isinstance(value, list):
        text = ", ".join(_short(part) for part in value) or "none"
        return text if len(text) <= _LONG else counted(len(value), "entry").replace("entrys", "entries")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _metric(row: Row) -> list[str]:
    """Name, value and the part of the protocol that decides whether two numbers may be compared."""
    protocol = row.get("protocol") or {}
    words = [str(protocol["extractor"])] if protocol.get("extractor") else []
    if "samples_fake" in protocol:
        words.append(f"{protocol['samples_fake']} generated and {protocol.get('samples_real')} real images")
    if "reference" in protocol:
        words.append(f"reference {str(protocol['reference'])[:8]}")
    shown = ", ".join(words) or _short(protocol)
    value = row.get("value")
    return [str(row.get("name")), "-" if value is None else _short(value), shown]


def _yaml(recipe: Row) -> str:
    """The recipe with what is not set left out, short sections on one line."""
    import yaml

    known = [section for section in _RECIPE if section in recipe]
    ordered = {section: recipe[section] for section in [*known, *(name for name in recipe if name not in known)]}
    text: str = yaml.safe_dump(
        _without_none(ordered), default_flow_style=None, sort_keys=False, width=_WIDTH, allow_unicode=True
    )
    return text.rstrip()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return value


def tree(node: Row) -> str:
    """The ancestors as a drawing. A dataset outside of the store is a leaf."""
    utf = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    lines = [_node_text(node)]
    _branches(node, "", ("├─ ", "└─ ", "│  ") if utf else ("|- ", "`- ", "|  "), lines)
    return "\n".join(lines)


def _branches(node: Row, before: str, strokes: tuple[str, str, str], lines: list[str]) -> None:
    fork, end, bar = strokes
    for number, parent in enumerate(node["parents"], 1):
        last = number == len(node["parents"])
        lines.append(f"{before}{end if last else fork}{parent['role']}: {_node_text(parent)}")
        _branches(parent, before + ("   " if last else bar), strokes, lines)


def _node_text(node: Row) -> str:
    if node.get("external"):
        return f"{node['ref']}  [data outside of the store, sha256 {node['digest'][:16]}]"
    if node.get("missing"):
        return f"{node['ref']}  [not in the store]"
    known = f"{node['ref']}  [{node['kind']}, {node['created'][:19].replace('T', ' ')}]"
    return f"{known}  (see above)" if node.get("repeated") else known
