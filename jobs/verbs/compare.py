"""The verb that compares two published versions, and its page."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.output import Context, table
from jobs.verbs.words import size_text, time_text

Row = dict[str, Any]
_LONG = 60
_OUTCOMES = {"only_a": "only in a", "only_b": "only in b"}


def diff(
    ctx: Context,
    a: Annotated[str, typer.Argument(metavar="A", help="name:alias or name@digest.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.", show_default=False)],
    digests: Annotated[
        bool, typer.Option("--digests", help="Only say which files differ, without fetching any.")
    ] = False,
) -> None:
    """Show what differs between two versions: blocks and by how much, recipe, metrics, facts. -v shows every tensor."""
    from cluster.comparing import changed_files, compare
    from jobs.verbs.transfers import transferring

    store = ctx.open_store()
    left, right = store.resolve(a), store.resolve(b)
    size = 0 if digests else sum({e.sha256: e.size for pair in changed_files(left, right) for e in pair}.values())
    if size:
        with transferring(ctx, store, "fetching what changed", size):
            found = compare(store, left, right)
    else:
        found = compare(store, left, right, values=False)
    ctx.emit(found, lambda: page(found, ctx.verbose))


def page(found: Row, verbose: bool = False) -> str:
    """What `cluster.comparing.compare` returned, for a person."""
    heads = [[side, found[side]["ref"], found[side]["kind"], time_text(found[side]["created"])] for side in "ab"]
    parts = [table(heads[1:], heads[0]), _files_text(found["files"])]
    if found["same"]:
        return "\n\n".join([parts[0], "they are the same version"])
    blocks = [row for row in found["blocks"] if row["change"] != "unchanged"]
    if blocks:
        head = ["block", "relative L2", "max abs", "tensors that differ"]
        parts.append(_section("blocks", [line for row in blocks for line in _block_lines(row, verbose)], head))
    if found["blocks"] and len(blocks) < len(found["blocks"]):
        same = [row["block"] for row in found["blocks"] if row["change"] == "unchanged"]
        parts.append("unchanged blocks: " + ", ".join(same))
    others = [row for row in found["files"] if row["change"] != "unchanged" and not _is_block(row["path"])]
    if others:
        parts.append(_section("other files", [[row["path"], _file_text(row)] for row in others]))
    for document in found["documents"]:
        rows = [["", document["problem"], ""]] if document["problem"] else _leaves(document["differences"])
        parts.append(_section(document["path"], rows, None if document["problem"] else ["", "a", "b"]))
    if found["metrics"]:
        parts.append(_section("metrics", [_metric(row) for row in found["metrics"]], ["", "a", "b", "b - a", ""]))
    if found["a"]["has_recipe"] != found["b"]["has_recipe"]:
        parts.append(f"recipe\n  only {'a' if found['a']['has_recipe'] else 'b'} has one")
    elif found["recipe"]:
        parts.append(_section("recipe", _leaves(found["recipe"]), ["", "a", "b"]))
    for title, name in (("made from", "parents"), ("facts", "facts")):
        if found[name]:
            parts.append(_section(title, _leaves(found[name]), ["", "a", "b"]))
    return "\n\n".join(parts)


def _section(title: str, rows: list[list[str]], head: list[str] | None = None) -> str:
    lines = table(rows, head) if head else table(rows[1:], rows[0])
    return f"{title}\n" + "\n".join(f"  {line}" for line in lines.splitlines())


def _is_block(path: str) -> bool:
    return path.endswith(".safetensors")


def _files_text(files: list[Row]) -> str:
    parts = []
    for change, words in {"unchanged": "unchanged", "changed": "changed", **_OUTCOMES}.items():
        some = [row for row in files if row["change"] == change]
        if some:
            parts.append(
                f"{len(some)} {words} ({size_text(sum(row['bytes_b'] or row['bytes_a'] or 0 for row in some))})"
            )
    return f"files: {', '.join(parts) or 'none'}"


def _file_text(row: Row) -> str:
    if row["change"] == "changed":
        return f"changed, {size_text(row['bytes_a'])} and {size_text(row['bytes_b'])}"
    size = row["bytes_b"] if row["bytes_a"] is None else row["bytes_a"]
    same = f", the same bytes as {row['same_as']} in {'b' if row['bytes_b'] is None else 'a'}" if row["same_as"] else ""
    return f"{_OUTCOMES[row['change']]}, {size_text(size)}{same}"


def _block_lines(row: Row, verbose: bool) -> list[list[str]]:
    if row["change"] in _OUTCOMES:
        return [[row["block"], "-", "-", _OUTCOMES[row["change"]]]]
    if row["problem"]:
        return [[row["block"], "-", "-", row["problem"]]]
    if "tensors" not in row:
        return [[row["block"], "-", "-", "differ"]]
    differing = [tensor for tensor in row["tensors"] if tensor["change"] != "unchanged"]
    count = f"{len(differing)} of {len(row['tensors'])}" + (", not all values are finite" if row["not_finite"] else "")
    lines = [[row["block"], _figure(row["relative_l2"]), _figure(row["max_abs"]), count]]
    shown = row["tensors"] if verbose else [tensor for tensor in differing if tensor["change"] != "changed"]
    return lines + [
        [f"  {tensor['name']}", _figure(tensor.get("relative_l2")), _figure(tensor.get("max_abs")), _tensor(tensor)]
        for tensor in shown
    ]


def _tensor(tensor: Row) -> str:
    a, b = (
        f"{tensor[f'dtype_{side}']} {'x'.join(map(str, tensor[f'shape_{side}'] or [])) or 'scalar'}" for side in "ab"
    )
    if tensor["change"] in _OUTCOMES:
        return f"{_OUTCOMES[tensor['change']]}, {a if tensor['change'] == 'only_a' else b}"
    what = "not finite" if tensor.get("not_finite") else tensor["change"]
    return f"{what}, {a}" if a == b else f"{what}, {a} and {b}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _leaves(rows: list[Row]) -> list[list[str]]:
    return [
        [row["path"] or "(all)", *("-" if row["change"] == absent else _value(row[s]) for s, absent in _SIDES)]
        for row in rows
    ]


_SIDES = (("a", "only_b"), ("b", "only_a"))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) <= _LONG:
        return text
    return f"{len(value)} entries" if isinstance(value, dict | list) else f"{text[: _LONG - 3]}..."


def _metric(row: Row) -> list[str]:
    if row["unlike"]:
        note = "taken differently: " + "; ".join(
            f"{field} {_value(sides.get('a'))} and {_value(sides.get('b'))}" for field, sides in row["unlike"].items()
        )
        if set(row["unlike"]) == {"protocol"}:
            note = "how they were taken is not recorded"
    else:
        note = f"{row['better']} is better" if row["better"] else ""
    difference = "-" if row["difference"] is None else f"{row['difference']:+.4g}"
    return [row["name"], _figure(row["a"]), _figure(row["b"]), difference, note]
