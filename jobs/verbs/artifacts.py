"""Verbs about published artifacts: bringing them here, publishing, looking, moving aliases, checking."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, counted, table
from tlgan.errors import IntegrityError, NotFound, SpecError, did_you_mean

if TYPE_CHECKING:
    from cluster.store import ArtifactStore
    from cluster.store.aliases import Alias

RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="name:alias or name@digest of an artifact.", show_default=False)
]


def pull(
    ctx: Context,
    ref: RefArgument,
    dest: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", help="New or empty folder; default: the shared cache.")
    ] = None,
) -> None:
    """Bring an artifact here, every byte verified, and print its folder."""
    from jobs.verbs.transfers import pull_shown

    store = ctx.open_store()
    manifest = store.resolve(ref)
    path = pull_shown(ctx, store, manifest, dest and dest.expanduser()).absolute()
    facts = {"ref": manifest.ref, "digest": manifest.digest, "path": str(path)}
    ctx.emit({**facts, "files": len(manifest.files), "bytes": manifest.size}, str(path))


def push(
    ctx: Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder or a file.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the artifact.", show_default=False)],
    alias: Annotated[
        list[str] | None, typer.Option("--alias", metavar="ALIAS", help="Alias to move besides latest. Repeatable.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="gan, classifier, files, ...; default: as found.")
    ] = None,
) -> None:
    """Publish a folder or a file and print its pinned reference. A model that loads is published as one."""
    from cluster.contents import look_into
    from jobs.verbs.transfers import transferring
    from tlgan.naming import check_name

    aliases = list(dict.fromkeys(["latest", *(check_name(text, "alias") for text in alias or [])]))
    check_name(name)
    found = look_into(Path(path), kind)
    if found.note:
        ctx.say(f"warning: {found.note}")
    store = ctx.open_store()
    with transferring(ctx, store, f"publishing {name}", found.bytes) as stats:
        manifest = store.push(
            name, found.path, kind=found.kind, recipe=found.recipe, facts=found.facts, aliases=tuple(aliases)
        )
    facts = {"ref": manifest.ref, "digest": manifest.digest, "name": name, "kind": manifest.kind, "aliases": aliases}
    sizes = {"files": len(manifest.files), "bytes": manifest.size, "uploaded_bytes": stats.uploaded}
    ctx.emit({**facts, **sizes}, manifest.ref)


def ls(
    ctx: Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the versions of this artifact.")] = None,
) -> None:
    """List what is published: every artifact's newest version, or all versions of one."""
    from cluster.listing import artifact_rows, version_rows
    from jobs.verbs.artifact_page import listing

    store = ctx.open_store()
    rows = version_rows(store, name) if name else artifact_rows(store)
    for row in rows:
        if row["problem"]:
            ctx.say(f"warning: {row['problem']}")
    if not rows:
        ctx.say(f"nothing is published in {store.url}")
    ctx.emit(rows, lambda: listing(rows, name is not None))


def show(ctx: Context, ref: RefArgument) -> None:
    """Show what an artifact is, what it was made from and how it measured."""
    from jobs.verbs.artifact_page import page

    shown = ctx.open_store().show(ref)
    ctx.emit(shown, lambda: page(shown))


def lineage(ctx: Context, ref: RefArgument) -> None:
    """Draw what an artifact was made from, down to the datasets."""
    from jobs.verbs.artifact_page import tree

    ancestors = ctx.open_store().lineage(ref)
    ctx.emit(ancestors, lambda: tree(ancestors))


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
) -> None:
    """List an artifact's aliases, or move one."""
    _check_alias_call(name, alias, target, expect)
    store = ctx.open_store()
    if alias is None or target is None:
        _show_aliases(ctx, store, name, alias)
        return
    from jobs.verbs.transfers import store_warnings

    version = store.resolve(_target(name, target))
    if version.name != name:
        message = f"{name}:{alias} can't point at {version.ref}: an alias points at a version of its own artifact"
        raise SpecError(message, hint=f"tlgan artifact ls {name} lists them")
    with store_warnings(ctx):
        moved = store.move_alias(name, alias, version.digest, expect)
    row = _alias_row(moved)
    ctx.emit(row, f"{name}:{alias}  {row['ref']}" + (f"  (was {row['prev']})" if row["prev"] else ""))


def verify(
    ctx: Context,
    ref: RefArgument,
    full: Annotated[bool, typer.Option("--full", help="Read and hash every byte, not only sizes.")] = False,
) -> None:
    """Check that an artifact is whole in the store. Exit code 8 and the list of problems when it is not."""
    from jobs.verbs.words import size_text

    report = ctx.open_store().verify(ref, full)
    how = "every byte hashed" if full else "sizes only; --full hashes every byte"
    whole = f"{report.ref} is whole: {counted(report.files, 'file')}, {size_text(report.bytes)} ({how})"
    data = {name: getattr(report, name) for name in ("ref", "digest", "files", "bytes", "full", "ok", "problems")}
    ctx.emit(data, whole if report.ok else "\n".join(report.problems))
    if not report.ok:
        raise IntegrityError(
            f"{report.ref} in {store_name(ctx)} is damaged: {counted(len(report.problems), 'problem')}",
            hint="publish the same files again to mend missing ones; move the aliases to a version that is whole",
        )


def store_name(ctx: Context) -> str:
    from cluster.store.base import scrub

    return scrub(ctx.store_url())


def _check_alias_call(name: str, alias: str | None, target: str | None, expect: str | None) -> None:
    from tlgan.naming import check_name

    if ":" in name and alias is not None:
        own, _, moved = name.partition(":")
        raise SpecError(f"{name} is a reference; expected a name", hint=f"tlgan artifact alias {own} {moved} {alias}")
    check_name(name)
    if alias is not None:
        check_name(alias, "alias")
    if expect is not None and target is None:
        raise SpecError("--expect is for moving an alias; TARGET is missing", hint=f"tlgan artifact ls {name}")


def _target(name: str, text: str) -> str:
    """The reference that TARGET means: digits of a digest, an alias of the same artifact, or a reference as it is."""
    if ":" in text or "@" in text.removeprefix("@"):
        return text
    digits = text.removeprefix("@")
    return f"{name}@{digits}" if re.fullmatch(r"[0-9a-f]{4,64}", digits) else f"{name}:{text}"


def _show_aliases(ctx: Context, store: ArtifactStore, name: str, alias: str | None) -> None:
    found = store.aliases(name)
    if not found or (alias is not None and alias not in found):
        if not store.versions(name):
            near = did_you_mean(name, store.names())
            raise NotFound(f'there is no artifact "{name}" in {store.url}' + (f"; {near}" if near else ""))
        if alias is not None:
            hint = did_you_mean(alias, found) or f"aliases of {name}: {', '.join(sorted(found)) or 'none'}"
            raise NotFound(f'{name} has no alias "{alias}" in {store.url}', hint=hint)
    rows = [_alias_row(found[one]) for one in sorted(found) if alias in (None, one)]
    if alias is not None:
        ctx.emit(rows[0], rows[0]["ref"])
        return
    cells = [[row["alias"], row["ref"], row["moved"][:19].replace("T", " "), row["prev"] or "-"] for row in rows]
    ctx.emit(rows, table(cells, ["alias", "version", "moved (UTC)", "before"]) if rows else "")


def _alias_row(found: Alias) -> dict[str, Any]:
    prev = found.prev and f"{found.name}@{found.prev.digest[:16]}"
    pinned = {"ref": f"{found.name}@{found.digest[:16]}", "digest": found.digest}
    return {"name": found.name, "alias": found.alias, **pinned, "moved": found.moved, "prev": prev}
