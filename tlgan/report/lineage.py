"""The lineage as an inline SVG: artifacts from left to right, each under the columns of what it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from tlgan.report.html import Html, data_url, el, png_size, short
from tlgan.report.model import LineageNode

WIDTH, HEIGHT, SLOT, GAP_X, GAP_Y, MARGIN, THUMB = 232, 92, 12, 60, 20, 6, 60  # px
KINDS = {
    "dataset": "Dataset",
    "classifier": "Features classifier",
    "gan": "Generator",
    "files": "Files",
    "artifact": "Artifact",
    "run": "Run",
}

Edge = tuple[str, str, str]  # parent, role, child
Place = tuple[float, float]


def lineage_svg(nodes: Sequence[LineageNode]) -> Html:
    """The graph. Parents that are not among the nodes, repeated ids and cycles are left out rather than refused."""
    known = {node.id: node for node in nodes}
    edges = [(parent, role, node.id) for node in known.values() for role, parent in node.parents if parent in known]
    edges = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[2]]
    column = columns(list(known), edges)
    routes = _routes(column, edges)
    places = _places(column, routes)
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN
    height = max(y + (HEIGHT if place in known else SLOT) / 2 for place, (_, y) in places.items()) + MARGIN
    return el(
        "svg",
        el(
            "g",
            [_edge(places, route, role) for (_, role, _), route in routes.items()],
            class_="edges",
            aria_hidden="true",
        ),
        el("clipPath", el("rect", x=-2, y=-2, width=WIDTH + 4, height=HEIGHT + 4), id="lineage-card"),
        [_card(node, places[node.id][0], places[node.id][1] - HEIGHT / 2) for node in known.values()],
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        class_="lineage",
        role="group",
        aria_label="Lineage: " + "; ".join(_sentence(node, known) for node in known.values()),
    )


def _sentence(node: LineageNode, known: dict[str, LineageNode]) -> str:
    parents = [known[p].label for _, p in node.parents if p in known]
    return f"{node.label} from {' and '.join(parents)}" if parents else node.label


def columns(ids: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Column of each node: right of all its parents; a node without parents stands just left of its first child.

    In a cycle the edge that closes it does not count.
    """
    parents: dict[str, list[str]] = {i: [] for i in ids}
    children: dict[str, list[str]] = {i: [] for i in ids}
    for parent, _, child in edges:
        parents[child].append(parent)
        children[parent].append(child)
    depth: dict[str, int] = {}

    def visit(node: str, path: frozenset[str]) -> int:
        if node not in depth:
            above = [visit(p, path | {node}) for p in parents[node] if p not in path and p != node]
            depth[node] = 1 + max(above, default=-1)
        return depth[node]

    for node in ids:
        visit(node, frozenset())
    for node in ids:
        if not parents[node] and children[node]:
            depth[node] = max(0, min(depth[c] for c in children[node]) - 1)
    return depth


def _routes(column: dict[str, int], edges: Sequence[Edge]) -> dict[Edge, list[str]]:
    """The places an edge runs through: its ends and, in every column between, a slot kept free for it."""
    return {
        (parent, role, child): [
            parent,
            *(f"{parent}\n{child}\n{c}" for c in range(column[parent] + 1, column[child])),
            child,
        ]
        for parent, role, child in edges
    }


def _places(column: dict[str, int], routes: dict[Edge, list[str]]) -> dict[str, Place]:
    """Left edge and middle height of each card and slot; a column is ordered by the mean height of the parents."""
    slots = {
        slot: column[route[0]] + i
        for route in routes.values()
        for i, slot in enumerate(route)
        if 0 < i < len(route) - 1
    }
    everything = column | slots
    above: dict[str, list[str]] = {}
    for route in routes.values():
        for before, after in pairwise(route):
            above.setdefault(after, []).append(before)
    by_column: dict[int, list[str]] = {}
    for place, c in everything.items():
        by_column.setdefault(c, []).append(place)
    total = {c: sum(SLOT if p in slots else HEIGHT for p in m) + GAP_Y * (len(m) - 1) for c, m in by_column.items()}
    middle: dict[str, float] = {}
    for c in sorted(by_column):
        wanted = {p: _mean([middle[a] for a in above.get(p, ()) if a in middle], math.inf) for p in by_column[c]}
        top = MARGIN + (max(total.values()) - total[c]) / 2
        for place in sorted(by_column[c], key=wanted.__getitem__):
            size = SLOT if place in slots else HEIGHT
            middle[place] = top + size / 2
            top += size + GAP_Y
    rank = {c: i for i, c in enumerate(sorted(by_column))}
    return {p: (MARGIN + rank[c] * (WIDTH + GAP_X), middle[p]) for p, c in everything.items()}


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _edge(places: dict[str, Place], route: list[str], role: str) -> Html:
    """A curve through all places of the route, level where it passes a column, with an arrow at its end."""
    x, y = places[route[0]][0] + WIDTH, places[route[0]][1]
    path = f"M{x:g} {y:g}"
    for place in route[1:]:
        left, level = places[place]
        bend = max(24.0, abs(left - x) / 2)
        path += f" C{x + bend:g} {y:g} {left - bend:g} {level:g} {left:g} {level:g}"
        if place != route[-1]:
            path += f" L{left + WIDTH:g} {level:g}"
        x, y = left + WIDTH, level
    end, y = places[route[-1]]
    arrow = f"M{end - 8:g} {y - 4.5:g} L{end - 1:g} {y:g} L{end - 8:g} {y + 4.5:g} Z"
    title = el("title", role.replace("_", " "))
    return el("g", el("path", d=path, class_="edge"), el("path", d=arrow, class_="arrow"), title)


def _card(node: LineageNode, x: float, y: float) -> Html:
    size = png_size(node.png)
    left = 14 + (THUMB + 10 if size else 0)
    room = WIDTH - left - 5
    parts: list[Html | None] = [el("rect", width=WIDTH, height=HEIGHT, rx=9, class_="card")]
    if size and node.png:
        box = {"x": 12, "y": (HEIGHT - THUMB) / 2, "width": THUMB, "height": THUMB}
        parts.append(el("image", href=data_url(node.png), preserveAspectRatio="xMidYMid slice", **box))
    parts += [
        el("text", _fit(KINDS.get(node.kind, node.kind), room, 11.5), x=left, y=21, class_="kind"),
        el("text", _fit(node.label, room, 13.5, bold=True), x=left, y=40, class_="label"),
        el("text", _fit(node.note, room, 11.5), x=left, y=57, class_="kind") if node.note else None,
        _digest(node.digest, left) if node.digest else None,
        el("title", f"{node.label} {node.note}".strip()),
    ]
    return el("g", parts, transform=f"translate({x:g} {y:g})", clip_path="url(#lineage-card)", class_="node")


def _digest(digest: str, left: float) -> Html:
    return el(
        "g",
        el("rect", x=left - 5, y=66, width=len(short(digest)) * 6.7 + 26, height=18, rx=5),
        el("text", short(digest), x=left, y=79),
        el("path", d=f"M{left + len(short(digest)) * 6.7 + 6:g} 70.5h7v9h-7z m3 -2h7v9", class_="icon"),
        el("title", f"Copy {digest}"),
        class_="copy",
        role="button",
        tabindex=0,
        aria_label=f"Copy digest {short(digest)}",
        data_copy=digest,
    )


def _fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """Text shortened in its middle until it takes about `room` px in a font of `size` px."""
    text, kept = text[:200], text
    most = len(text)
    while _advance(kept, bold) * size > room and most > 3:
        most -= 1
        kept = f"{text[: most // 2]}…{text[len(text) - (most - 1 - most // 2) :]}"
    return kept


def _advance(text: str, bold: bool) -> float:
    """Width in ems, on the wide side: what a text takes in the widest of the fonts of the page."""
    ems = sum(
        0.36 if c in "iljtfrI.,:;!'()[]/| -" else 0.95 if c in "mwMW@%…" or ord(c) > 0x2E7F else 0.61 for c in text
    )
    return ems * (1.09 if bold else 1.0)
