"""Verbs that take artifacts elsewhere: to another store, into a file and back, to somebody who has no key."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, counted
from tlgan.errors import SpecError, TlganError

if TYPE_CHECKING:
    from cluster.store import ArtifactStore
    from cluster.store.copying import Family, Placed
    from tlgan.manifest import Manifest

RefsArgument = Annotated[
    list[str], typer.Argument(metavar="REF", help="name:alias or name@digest, one or more.", show_default=False)
]
AliasOption = Annotated[
    list[str] | None, typer.Option("--alias", metavar="ALIAS", help="Alias to move there. Repeatable; default: none.")
]
ParentsOption = Annotated[bool, typer.Option("--with-parents", help="And everything that they were made from.")]


def copy(
    ctx: Context,
    refs: RefsArgument,
    to: Annotated[
        str, typer.Argument(metavar="TO_STORE", help="file:///path or s3://bucket/prefix.", show_default=False)
    ],
    alias: AliasOption = None,
    with_parents: ParentsOption = False,
    endpoint: Annotated[
        str | None, typer.Option("--to-endpoint", metavar="URL", help="S3 server of TO_STORE; default: the same.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--to-profile", metavar="NAME", help="AWS profile with the key for TO_STORE.")
    ] = None,
) -> None:
    """Copy artifacts to another store and print their references there.

    Only what TO_STORE lacks is sent. A copy has the digest of its original. Aliases are moved only when asked for. A copy that
    was interrupted goes on where it was.
    """
    from cluster.store.copying import check_aliases, family
    from cluster.store.copying import copy as copy_one

    _check_destination(refs, to)
    store = ctx.open_store()
    target = other_store(store, to, endpoint, profile)
    found = family(store, refs, with_parents)
    aliases = check_aliases((one for one in found.manifests if one.digest in found.asked), alias or [])
    what = f"copying {counted(len(found.manifests), 'artifact')} to {target.url}"
    _place_all(ctx, target, found, aliases, what, lambda one, named: copy_one(store, target, one, named))


def export(
    ctx: Context,
    refs: RefsArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.tar", help="New file to write.", show_default=False, dir_okay=False)
    ],
    with_parents: ParentsOption = False,
) -> None:
    """Write artifacts into one tar, for a place that no network reaches, and print its path.

    The tar is plain and laid out as a store; SHA256SUMS in it serves sha256sum -c. The same artifacts make the same bytes.
    """
    from cluster.store.archive import export as export_all
    from cluster.store.copying import family
    from jobs.verbs.transfers import byte_bar, store_warnings

    if file.suffix != ".tar":
        raise SpecError(f"{str(file)!r} does not end with .tar", hint=f"tlgan artifact export {refs[0]} models.tar")
    store = ctx.open_store()
    found = family(store, refs, with_parents)
    for text in found.lost:
        ctx.say(f"warning: left out: {text}")
    what = f"exporting {counted(len(found.manifests), 'artifact')}"
    with store_warnings(ctx), byte_bar(ctx, what, found.bytes) as advance:
        done = export_all(store.store, found.manifests, file.expanduser(), advance)
    path = done.path.absolute()
    facts = {"path": str(path), "bytes": done.bytes, "sha256": done.sha256, "blobs": done.blobs}
    artifacts = [{"ref": one.ref, "digest": one.digest, "asked": one.digest in found.asked} for one in found.manifests]
    ctx.say(f"sha256 {done.sha256}")
    ctx.emit({**facts, "artifacts": artifacts}, str(path))


def import_file(
    ctx: Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.tar", help="A file that `artifact export` wrote.", show_default=False)
    ],
    alias: AliasOption = None,
) -> None:
    """Publish the artifacts of an exported tar and print their references.

    Every byte is checked before the first is published. Aliases go to the artifacts that no other one in the file was made from.
    """
    from cluster.store.copying import Family, check_aliases
    from cluster.store.unpacking import take_in, verified
    from jobs.verbs.transfers import byte_bar

    store, file = ctx.open_store(), file.expanduser()
    size = file.stat().st_size if file.is_file() else 0
    with ExitStack() as stack:
        with byte_bar(ctx, f"checking {file}", size) as advance:
            archive = stack.enter_context(verified(file, advance))
        roots = archive.roots
        aliases = check_aliases(roots, alias or [])
        found = Family(archive.manifests, {manifest.digest for manifest in roots})
        what = f"importing {counted(len(found.manifests), 'artifact')}"
        _place_all(ctx, store, found, aliases, what, lambda one, named: take_in(store, archive, one, named))


def share(
    ctx: Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:alias or name@digest.", show_default=False)],
    path: Annotated[
        list[str] | None, typer.Option("--path", metavar="FILE", help="Only this file of it. Repeatable.")
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long the URLs work: 90s, 15min, 1h, 7d at most.")
    ] = "1h",
) -> None:
    """Print URLs that anybody can download an artifact's files with, for a while. Only for a store in a bucket.

    A file that is stored in pieces has as many URLs, in their order.

    The URLs carry the rights of the access key in force. They are never logged; to revoke them, disable that key.
    """
    from cluster.store.sharing import duration, presign

    seconds = duration(expires)
    store = ctx.open_store()
    manifest = store.resolve(ref)
    shared = presign(store.store, manifest, path or [], seconds)
    facts = {"ref": manifest.ref, "digest": manifest.digest, "expires": shared.expires, "access_key": shared.access_key}
    rows = [
        {"path": one.entry.path, "size": one.entry.size, "sha256": one.entry.sha256}
        | ({"url": one.urls[0]} if len(one.urls) == 1 else {"urls": one.urls})
        for one in shared.files
    ]
    lines = [url if len(shared.files) == 1 else f"{one.entry.path}\t{url}" for one in shared.files for url in one.urls]
    ctx.say(
        f"whoever has such a URL can read that file until {shared.expires[:19].replace('T', ' ')} UTC, with the rights of"
    )
    ctx.say(f"the access key {shared.access_key}; only disabling or rotating that key takes it back before")
    for one in shared.files:
        if len(one.urls) > 1:
            ctx.say(
                f"{one.entry.path} lies in {len(one.urls)} pieces: download all of its URLs in their order into one file"
            )
    if shared.session:
        ctx.say("warning: the key is a temporary one: the URLs end with it, which may be earlier")
    ctx.emit({**facts, "files": rows}, "\n".join(lines))


def other_store(
    store: ArtifactStore, url: str, endpoint: str | None = None, profile: str | None = None
) -> ArtifactStore:
    """The second store of a verb. Raises `SpecError` when it is the one in force."""
    from cluster.store import ArtifactStore, check_endpoint, open_store

    endpoint = endpoint and check_endpoint("the endpoint of the other store", endpoint)
    other = ArtifactStore(open_store(url, endpoint=endpoint, profile=profile))
    places = [(one.url, getattr(one.store, "endpoint", None)) for one in (store, other)]
    if places[0] == places[1]:
        raise SpecError(f"{other.url} is the store itself; expected another one", hint="--store names the first one")
    return other


def _check_destination(refs: list[str], to: str) -> None:
    """The last word is the store: a reference in its place would be taken for a directory."""
    from tlgan.naming import ArtifactRef

    try:
        ArtifactRef.parse(to)
    except SpecError:
        return
    hint = f"as in: tlgan artifact copy {' '.join([*refs, to])} s3://bucket/prefix"
    raise SpecError(f"{to!r} is a reference; expected the store to copy to as the last word", hint=hint)


def _place_all(
    ctx: Context,
    target: ArtifactStore,
    found: Family,
    aliases: list[str],
    what: str,
    place: Callable[[Manifest, list[str]], Placed],
) -> None:
    """Places one after the other, parents first, and tells the result. What is done stays when a later one fails."""
    from jobs.verbs.transfers import transferring

    for text in found.lost:
        ctx.say(f"warning: left out: {text}")
    done: list[Placed] = []
    try:
        with transferring(ctx, target, what, found.bytes):
            for manifest in found.manifests:
                done.append(place(manifest, aliases if manifest.digest in found.asked else []))
    except (KeyboardInterrupt, TlganError):
        arrived = "".join(f"\n  {one.manifest.ref}" for one in done)
        ctx.say(f"{len(done)} of {counted(len(found.manifests), 'artifact')} arrived{':' if done else ''}{arrived}")
        ctx.say("blobs that arrived stay for a while; the same command goes on from there")
        raise
    for one in done:
        if not one.same:
            ctx.say(f"warning: {one.source.ref} needed other keys there: its copy is {one.manifest.ref}")
    rows = [_row(one, found) for one in done]
    ctx.emit(rows, "\n".join(row["ref"] for row in rows))


def _row(one: Placed, found: Family) -> dict[str, Any]:
    facts = {
        "ref": one.manifest.ref,
        "digest": one.manifest.digest,
        "name": one.manifest.name,
        "source": one.source.ref,
    }
    sizes = {"files": len(one.manifest.files), "bytes": one.manifest.size}
    sent = {"uploaded_bytes": one.uploaded, "reused_bytes": one.reused}
    asked = one.source.digest in found.asked
    return {**facts, **sizes, **sent, "aliases": one.aliases, "asked": asked, "same_digest": one.same}
