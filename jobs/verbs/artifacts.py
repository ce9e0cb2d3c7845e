"""Verbs about published artifacts: bringing them here, publishing, looking, moving aliases, checking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.output import Context
from tlgan.errors import SpecError

RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="name:alias or name@digest of an artifact.", show_default=False)
]


def pull(
    ctx: Context,
    ref: RefArgument,
    dest: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", help="New or empty folder; default: the shared cache.")
    ] = None,
    allow_unsafe: Annotated[
        bool,
        typer.Option("--allow-unsafe", help="Take files too that could run code when loaded: pickles, archives, ..."),
    ] = False,
    verify_key: Annotated[
        Path | None,
        typer.Option("--verify-key", metavar="FILE", help="Take it only if one of these public keys signed it."),
    ] = None,
) -> None:
    """Bring an artifact here, every byte verified, and print its folder."""
    from jobs.verbs.transfers import pull_shown

    store = ctx.open_store()
    manifest = store.resolve(ref)
    options = {"allow_unsafe": allow_unsafe, "verify_key": verify_key}
    path = pull_shown(ctx, store, manifest, dest and dest.expanduser(), **options).absolute()
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
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", metavar="FILE", help="Sign it with this private key (Ed25519, PEM).")
    ] = None,
) -> None:
    """Publish a folder or a file and print its pinned reference. A model that loads is published as one."""
    from cluster.contents import look_into
    from cluster.store.formats import some
    from jobs.verbs.transfers import transferring
    from tlgan.naming import check_name

    aliases = list(dict.fromkeys(["latest", *(check_name(text, "alias") for text in alias or [])]))
    check_name(name)
    found = look_into(Path(path), kind)
    if found.note:
        ctx.say(f"warning: {found.note}")
    if found.unsafe:
        ctx.say(f"warning: whoever pulls this needs --allow-unsafe: {some(found.unsafe)}")
    store = ctx.open_store()
    with transferring(ctx, store, f"publishing {name}", found.bytes) as stats:
        manifest = store.push(
            name,
            found.path,
            kind=found.kind,
            recipe=found.recipe,
            facts=found.facts,
            aliases=tuple(aliases),
            sign_key=sign_key,
        )
    facts = {"ref": manifest.ref, "digest": manifest.digest, "name": name, "kind": manifest.kind, "aliases": aliases}
    sizes = {"files": len(manifest.files), "bytes": manifest.size, "uploaded_bytes": stats.uploaded}
    ctx.emit({**facts, **sizes}, manifest.ref)


def sign(
    ctx: Context,
    ref: RefArgument,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The private key (Ed25519, PEM); default: $TLGAN_SIGN_KEY."),
    ] = None,
) -> None:
    """Sign a published artifact, so that a pull with --verify-key takes it.

    A key is made by: openssl genpkey -algorithm ed25519 -out sign.pem
    Its public half by: openssl pkey -in sign.pem -pubout -out verify.pem
    """
    from cluster.store import signing
    from tlgan.errors import SpecError

    if (file := signing.sign_key(key)) is None:
        raise SpecError("there is no key to sign with", hint=f"give --key FILE or set {signing.SIGN_VARIABLE}")
    store = ctx.open_store()
    manifest = store.resolve(ref)
    used = signing.sign(store.store, manifest, file)
    ctx.emit({"ref": manifest.ref, "digest": manifest.digest, "key": used}, f"{manifest.ref}  signed by {used}")


def ls(
    ctx: Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the versions of this artifact.")] = None,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Only the newest N versions of NAME.")
    ] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="List what was deleted and may be restored.")] = False,
) -> None:
    """List what is published: every artifact's newest version, or all versions of one."""
    from cluster.listing import artifact_rows, deleted_rows, version_rows
    from jobs.verbs.artifact_page import deleted_listing, listing

    if last is not None and (name is None or deleted):
        raise SpecError("--last is for the versions of one artifact", hint="tlgan artifact ls NAME --last 10")
    store = ctx.open_store()
    if deleted:
        rows = deleted_rows(store, name)
        if not rows:
            ctx.say(f"no deleted version{f' of {name}' if name else ''} is left in {store.url}")
        ctx.emit(rows, lambda: deleted_listing(rows))
        return
    rows = version_rows(store, name, last) if name else artifact_rows(store)
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


def lineage(
    ctx: Context,
    ref: RefArgument,
    as_dot: Annotated[
        bool, typer.Option("--dot", help="As a graph for Graphviz: ... | dot -Tsvg > lineage.svg")
    ] = False,
) -> None:
    """Draw what an artifact was made from, down to the datasets."""
    from jobs.verbs.artifact_page import dot, tree

    ancestors = ctx.open_store().lineage(ref)
    if as_dot:
        ctx.emit({"dot": dot(ancestors)}, lambda: dot(ancestors))
        return
    ctx.emit(ancestors, lambda: tree(ancestors))
