"""The verb about aliases: listing, moving, taking away, where they were, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, table
from jobs.verbs.words import time_text
from tlgan.errors import NotFound, SpecError, did_you_mean

if TYPE_CHECKING:
    from cluster.store import ArtifactStore
    from cluster.store.aliases import Alias, Target

Row = dict[str, Any]


def alias(
    ctx: Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the artifact.", show_default=False)],
    alias: Annotated[str | None, typer.Argument(metavar="[ALIAS]", help="Alias to show or to move.")] = None,
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="Where to: a reference, a digest, or another alias of NAME."),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="DIGEST", help='Move only from this digest; "none": only create it.'),
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="List the last 50 places it was at.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Undo its last move; again: the one before. Nobody else's meanwhile.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away. --undo brings it back.")] = False,
) -> None:
    """List an artifact's aliases, move one, or see where it was."""
    _check_call(name, alias, target, expect, {"--history": history, "--undo": undo, "--remove": remove})
    store = ctx.open_store()
    if alias is None:
        _list(ctx, store, name)
    elif history:
        _history(ctx, store, name, alias)
    elif target is not None or undo or remove:
        _move(ctx, store, name, alias, target, expect, undo)
    else:
        found = _known(store, name, alias)
        ctx.emit(_row(found), _row(found)["ref"])


def _move(
    ctx: Context, store: ArtifactStore, name: str, alias: str, target: str | None, expect: str | None, undo: bool
) -> None:
    from jobs.verbs.transfers import store_warnings

    with store_warnings(ctx):
        if target is not None:
            version = store.resolve(_target(name, target))
            if version.name != name:
                message = (
                    f"{name}:{alias} can't point at {version.ref}: an alias points at a version of its own artifact"
                )
                raise SpecError(message, hint=f"tlgan artifact ls {name} lists them")
            moved = store.move_alias(name, alias, version.digest, expect)
        elif undo:
            moved = store.undo_alias(name, alias, expect)
        else:
            _known(store, name, alias)
            moved = store.remove_alias(name, alias, expect)
    row = _row(moved)
    now = "removed" if moved.removed else row["ref"]
    ctx.emit(row, f"{name}:{alias}  {now}" + (f"  (was {_place(name, moved.prev)})" if moved.prev else ""))


def _check_call(name: str, alias: str | None, target: str | None, expect: str | None, flags: dict[str, bool]) -> None:
    from tlgan.naming import check_name

    given = [flag for flag, value in flags.items() if value]
    if ":" in name:
        own, _, moved = name.partition(":")
        words = " ".join([own, moved, *([alias] if alias is not None else []), *given])
        raise SpecError(f"{name} is a reference; expected a name", hint=f"tlgan artifact alias {words}")
    check_name(name)
    if alias is not None:
        check_name(alias, "alias")
    if len(given) > 1 or (given and target is not None):
        both = " and ".join(given) if len(given) > 1 else f"TARGET and {given[0]}"
        raise SpecError(f"{both} are two different wishes", hint="give one of them")
    if given and alias is None:
        hint = f"tlgan artifact alias {name} ALIAS {given[0]}; without ALIAS all are listed"
        raise SpecError(f"{given[0]} is for one alias; ALIAS is missing", hint=hint)
    if expect is not None and target is None and given not in (["--undo"], ["--remove"]):
        raise SpecError("--expect is for moving an alias; TARGET is missing", hint=f"tlgan artifact ls {name}")


def _target(name: str, text: str) -> str:
    """The reference that TARGET means: digits of a digest, an alias of the same artifact, or a reference as it is."""
    if ":" in text or "@" in text.removeprefix("@"):
        return text
    digits = text.removeprefix("@")
    return f"{name}@{digits}" if re.fullmatch(r"[0-9a-f]{4,64}", digits) else f"{name}:{text}"


def _known(store: ArtifactStore, name: str, alias: str) -> Alias:
    """Raises `NotFound` with what is near."""
    found = store.aliases(name)
    if alias in found:
        return found[alias]
    _check_artifact(store, name)
    hint = did_you_mean(alias, found) or f"aliases of {name}: {', '.join(sorted(found)) or 'none'}"
    raise NotFound(f'{name} has no alias "{alias}" in {store.url}', hint=hint)


def _check_artifact(store: ArtifactStore, name: str) -> None:
    if not store.versions(name):
        near = did_you_mean(name, store.names())
        raise NotFound(f'there is no artifact "{name}" in {store.url}' + (f"; {near}" if near else ""))


def _list(ctx: Context, store: ArtifactStore, name: str) -> None:
    found = store.aliases(name)
    if not found:
        _check_artifact(store, name)
    rows = [_row(found[one]) for one in sorted(found)]
    cells = [
        [row["alias"], row["ref"], time_text(row["moved"]), _place(name, found[row["alias"]].prev)] for row in rows
    ]
    ctx.emit(rows, table(cells, ["alias", "version", "moved (UTC)", "before"]) if rows else "")


def _history(ctx: Context, store: ArtifactStore, name: str, alias: str) -> None:
    """Every move that is known, the latest first."""
    found = store.alias(name, alias)
    live = {version.id for version in store.versions(name)}
    rows: list[Row] = [
        {
            "ref": _pinned(name, one),
            "digest": one.digest,
            "moved": one.moved,
            "undo": one.undo,
            "removed": one.removed,
            "current": one is found,
            "in_store": one.version in live,
        }
        for one in (found, *found.before)
    ]
    cells = [[time_text(row["moved"]), "-" if row["removed"] else row["ref"], _note(row)] for row in rows]
    ctx.emit(rows, table(cells, ["moved (UTC)", "to", ""]))


def _note(row: Row) -> str:
    words = {
        "now": row["current"] and not row["removed"],
        "removed": row["removed"],
        "by an undo": row["undo"],
        "not in the store any more": not row["in_store"] and not row["removed"],
    }
    return ", ".join(word for word, holds in words.items() if holds)


def _pinned(name: str, target: Target) -> str:
    return f"{name}@{target.digest[:16]}"


def _place(name: str, target: Target | None) -> str:
    return "-" if target is None else "removed" if target.removed else _pinned(name, target)


def _row(found: Alias) -> Row:
    prev = found.prev and not found.prev.removed and _pinned(found.name, found.prev)
    pinned = {"ref": None if found.removed else _pinned(found.name, found), "digest": found.digest}
    facts = {"moved": found.moved, "prev": prev or None, "removed": found.removed}
    return {"name": found.name, "alias": found.alias, **pinned, **facts}
