"""Artifacts as text: the listing, the page of one, the tree of its ancestors or its graph for Graphviz."""

from __future__ import annotations

import sys
from typing import Any

from jobs.output import counted, table
from jobs.verbs.words import age_text, size_text, time_text
from tlgan.shapes import text

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


def deleted_listing(rows: list[Row]) -> str:
    """Rows of `cluster.listing.deleted_rows`."""
    if not rows:
        return ""
    cells = []
    for row in rows:
        size = "-" if row["bytes"] is None else size_text(row["bytes"])
        state = "damaged" if row["problem"] else "yes" if row["restorable"] else "no, its files were collected"
        cells.append([row["ref"], row["kind"] or "-", size, time_text(row["deleted"]), state])
    return table(cells, ["version", "kind", "size", "deleted (UTC)", "can be restored"])


def _alias_cell(row: Row) -> str:
    """Aliases of the version by name; those of other versions with the beginning of the digest they stand for."""
    here = [alias for alias, ref in row["aliases"].items() if ref == row["ref"]]
    elsewhere = [f"{alias}@{ref.partition('@')[2][:8]}" for alias, ref in row["aliases"].items() if ref != row["ref"]]
    return ", ".join(here + elsewhere) or "-"


def page(shown: Row) -> str:
    """What `ArtifactStore.show` returned, for a person."""
    logical, stored, shared = (shown[f"{which}_bytes"] for which in ("logical", "stored", "shared"))
    size = f"{size_text(logical)} in {counted(len(shown['files']), 'file')}"
    if stored < logical:
        size += f"; {size_text(stored)} stored, {size_text(shared)} shared with ancestors"
    state = f"{time_text(shown['deleted'])} UTC; tlgan artifact restore {shown['ref']}" if shown["deleted"] else None
    top = [
        ["artifact", shown["ref"]],
        ["digest", shown["digest"]],
        ["kind", shown["kind"]],
        ["created", f"{shown['created'][:19].replace('T', ' ')} UTC, {age_text(shown['created'])}"],
        ["aliases", ", ".join(shown["aliases"]) or "none"],
        ["size", size],
        *([["deleted", state]] if state else []),
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
        return f"{counted(value['count'], 'image')} of {text(value['resolution'])}x{value['channels']}"
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
        real = f" and {protocol['samples_real']} real" if protocol.get("samples_real") else ""
        words.append(f"{protocol['samples_fake']} generated{real} images")
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
    deleted = ", deleted" if node.get("deleted") else ""
    known = f"{node['ref']}  [{node['kind']}, {node['created'][:19].replace('T', ' ')}{deleted}]"
    return f"{known}  (see above)" if node.get("repeated") else known


def dot(node: Row) -> str:
    """The ancestors as a graph in Graphviz's language, a parent above its children.

    A dataset outside of the store is an ellipse; a deleted version is grey, one that is not in the store dashed.
    """
    nodes: dict[str, str] = {}
    edges: dict[str, None] = {}
    _dot_node(node, nodes, edges)
    head = ["digraph lineage {", "  node [shape=box];"]
    return "\n".join([*head, *nodes.values(), *edges, "}"])


def _dot_node(node: Row, nodes: dict[str, str], edges: dict[str, None]) -> str:
    if node.get("external"):
        label, style = [node["ref"], f"outside of the store, sha256 {node['digest'][:16]}"], "shape=ellipse"
    elif node.get("missing"):
        label, style = [node["ref"], "not in the store"], "style=dashed"
    elif node.get("deleted"):
        label, style = [node["ref"], f"{node['kind']}, deleted"], "style=filled, fillcolor=lightgrey"
    else:
        label, style = [node["ref"], f"{node['kind']}, {time_text(node['created'])}"], ""
    own = _quoted([f"{'external ' if node.get('external') else ''}{node['digest']}"])
    attributes = ", ".join(part for part in (f"label={_quoted(label)}", style) if part)
    nodes.setdefault(own, f"  {own} [{attributes}];")
    for parent in node["parents"]:
        above = _dot_node(parent, nodes, edges)
        edges[f"  {above} -> {own} [label={_quoted([parent['role']])}];"] = None
    return own


def _quoted(lines: list[str]) -> str:
    """A string of Graphviz's language: in it a backslash and a quotation mark are escaped, and a line ends with \\n."""
    clean = (" ".join(line.split()).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(clean) + '"'
