"""Artifacts over a store: push, pull, references, aliases, lineage, verification.

The order of a push is that of `publish.py`. Whatever stops it before the commit leaves blobs that nothing names, which
a collector removes; nothing partial is ever visible.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.store import aliases as alias_moves
from cluster.store import catalog, formats, history, leases, pieces, signing, transfer, verifying
from cluster.store import publish as publishing
from cluster.store.aliases import Alias
from cluster.store.base import Store, sha256_of
from cluster.store.cache import Cache, copy_verified
from cluster.store.claim import Claim, Guard, free
from cluster.store.layout import Version, check_format, write_format
from cluster.store.writing import NewFolder
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound, SpecError
from tlgan.manifest import ArtifactRef, FileEntry, Manifest, Parent
from tlgan.naming import check_name

THREADS = 8


class ArtifactStore:
    """`cache_dir`: default `$TLGAN_CACHE/store`. `stats` counts the blob bytes that went either way."""

    def __init__(self, store: Store | str | None = None, cache_dir: Path | None = None, threads: int = THREADS) -> None:
        if store is None or isinstance(store, str):
            from cluster.store import open_store

            store = open_store(store)
        self.store = store
        self.cache_dir = cache_dir
        self.threads = threads
        self.stats = transfer.TransferStats()
        self._cache = Cache(cache_dir)
        self._format_seen = False

    def __reduce__(self) -> tuple[Any, ...]:
        return ArtifactStore, (self.store, self.cache_dir, self.threads)

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def single_writer(self) -> bool:
        """The server can't compare and swap: aliases are right only while one person at a time moves them."""
        return not self.store.capabilities.compare_and_swap

    def push(
        self,
        name: str,
        files: Path | Mapping[str, Path],
        *,
        kind: str,
        parents: Iterable[Parent] = (),
        recipe: BaseModel | dict[str, Any] | None = None,
        metrics: Iterable[dict[str, Any]] = (),
        facts: dict[str, Any] | None = None,
        aliases: Iterable[str] = ("latest",),
        guard: Guard = free,
        claim: Claim | None = None,
        sign_key: Path | None = None,
    ) -> Manifest:
        """Publishes a directory, a file, or files by their path in the artifact.

        Content and description equal to the newest version's give that version again, not another one. `guard` and
        `claim` as in `commit`.
        `sign_key`: file of the private key to sign it with (default: `$TLGAN_SIGN_KEY`, if set); see `signing`.
        """
        if sign_key := signing.sign_key(sign_key):
            signing.read_private(sign_key)  # refuses a bad one before the long work
        aliases = [check_name(alias, "alias") for alias in aliases]
        if isinstance(recipe, BaseModel):
            recipe = recipe.model_dump(mode="json")
        about: dict[str, Any] = {"kind": kind, "parents": parents, "recipe": recipe, "metrics": metrics, "facts": facts}
        empty = Manifest.create(check_name(name), [], **about)  # refuses a bad description before the long work
        self._check_format(writing=True)
        found = self._collect(files)
        placer = self._placer()
        with pieces.taken_in(placer, found, claim) as entries:
            manifest = Manifest.create(name, entries, **{**about, "parents": empty.parents, "metrics": empty.metrics})
            newest = self._newest(name)
            if newest is not None and newest.same_content(manifest):
                manifest = newest
            return self._publish(manifest, aliases, placer, guard, claim, sign_key)

    def stage(self, files: Path | Mapping[str, Path], pin: str) -> list[FileEntry]:
        """Uploads blobs only: nothing can be seen until a manifest with the entries is committed.

        The blobs are safe from a collector for two weeks under the name `pin`, and until `unpin`. Staging again under
        the same name gives the earlier blobs free.
        """
        self._check_format(writing=True)
        found = self._collect(files)
        placer = self._placer()
        with pieces.taken_in(placer, found) as entries:
            return publishing.stage(self.store, entries, placer, pin)

    def unpin(self, pin: str) -> None:
        """Gives blobs that were staged under this name free."""
        leases.unpin(self.store, pin)

    def commit(
        self,
        manifest: Manifest,
        aliases: Iterable[str] = ("latest",),
        guard: Guard = free,
        claim: Claim | None = None,
    ) -> Manifest:
        """Makes a manifest of staged blobs visible, then moves the aliases. Committing it again is no error.

        Returns what was published: it differs in the time and the keys of the blobs when a collector came between.
        `guard` raises when this process may not publish any more; `claim` names the attempt of a run that publishes.
        Raises `NotFound` when a blob is not in the store.
        """
        aliases = [check_name(alias, "alias") for alias in aliases]
        self._check_format(writing=True)
        return self._publish(manifest, aliases, self._placer(), guard, claim)

    def resolve(self, ref: str | ArtifactRef) -> Manifest:
        """Raises `NotFound` with near names and the aliases there are, `SpecError`, `IntegrityError`."""
        self._check_format()
        return catalog.resolve(self.store, ref)

    def pull(
        self,
        ref: str | ArtifactRef | Manifest,
        dest: Path | None = None,
        *,
        allow_unsafe: bool = False,
        verify_key: Path | None = None,
        published: bool = True,
    ) -> Path:
        """A directory with the verified files: `dest`, which must be new or empty, or else one in the cache.

        The one in the cache is shared and must not be written to. A `dest` that already holds exactly this artifact
        is fine; another content is a `Conflict`. After an error `dest` is as it was. Raises `SpecError` for files that
        could run code when loaded (see `formats`), unless `allow_unsafe`. With `verify_key` (default: `$TLGAN_VERIFY_KEY`,
        if set) an `IntegrityError` unless that key signed it. Only a run's own draft, not `published`, has no signature.
        """
        manifest = ref if isinstance(ref, Manifest) else self.resolve(ref)
        if published:
            self._check_signature(manifest, verify_key)
        judge = (lambda *_: None) if allow_unsafe else formats.refuse_unsafe
        judge(manifest)
        if dest is not None and _holds(dest, manifest):
            return dest
        if dest is None and (ready := self._cache.whole(manifest)):
            judge(manifest, lambda entry: ready / entry.path)
            return ready
        once = {entry.sha256: entry for entry in manifest.files}
        self._cache.make_room(once.values())
        transfer.in_parallel(self._cached, once.values(), self.threads)
        try:
            judge(manifest, self._cached)
            if dest is None:
                return self._cache.artifact(manifest, self._fetch)
            self._write(manifest, dest)
        except OSError as error:
            place = error.filename2 or error.filename or dest
            hint = "check the path, its permissions and the free space"
            raise BackendError(f"can't write {place}: {error.strerror or error}", hint=hint) from None
        finally:
            self._cache.trim()
        return dest

    def file(self, entry: FileEntry) -> Path:
        """One file of an artifact, verified, in the cache: shared, and must not be written to."""
        return self._cached(entry)

    def pick(self, manifest: Manifest, entry: FileEntry) -> Path:
        """One file of a published artifact, as `file` gives it, to be read at once; the signature is checked as by `pull`."""
        self._check_signature(manifest)
        self._cache.make_room([entry])
        return self._cached(entry)

    def _check_signature(self, manifest: Manifest, given: Path | None = None) -> None:
        if key := signing.verify_key(given):
            signing.check_signature(self.store, manifest, key)

    def names(self) -> list[str]:
        self._check_format()
        return catalog.list_names(self.store)

    def versions(self, name: str) -> list[Version]:
        """Oldest first; empty for a name that does not exist."""
        self._check_format()
        return catalog.list_versions(self.store, name)

    def aliases(self, name: str) -> dict[str, Alias]:
        """Alias -> record with `digest`, `moved` and `prev`."""
        self._check_format()
        return alias_moves.list_aliases(self.store, check_name(name))

    def move_alias(
        self,
        name: str,
        alias: str,
        digest: str,
        expect: str | None = None,
        guard: Guard = free,
        claim: Claim | None = None,
    ) -> Alias:
        """Points `name:alias` at the version with this digest (4 digits or more).

        `expect`: digits of the digest it must point at now, or "none" when it must not exist; otherwise `Conflict`.
        Raises `BackendError` for an `expect` that the server can't guarantee.
        """
        manifest = self.resolve(ArtifactRef.parse(f"{name}@{digest}"))
        version = Version.of(manifest)
        moved: list[Alias] = []

        def move() -> None:
            if not moved:  # else it is there, and a second time the expectation would meet our own move
                moved.append(alias_moves.move_alias(self.store, alias, version, manifest.digest, expect, guard, claim))

        publishing.protected_move(self.store, version, move)
        return moved[-1]

    def alias(self, name: str, alias: str) -> Alias:
        """The record of an alias, of a removed one too (`removed`). Raises `NotFound`, `IntegrityError`."""
        self._check_format()
        found = alias_moves.read_any(self.store, check_name(name), check_name(alias, "alias"))
        if found is None:
            catalog.resolve(self.store, ArtifactRef(name, alias=alias))  # raises, with what is near
            raise NotFound(f"{name}:{alias} is not in {self.url}")
        return found[0]

    def undo_alias(self, name: str, alias: str, expect: str | None = None) -> Alias:
        """Moves the alias back to where it was before its last move that is not undone yet.

        Raises `Conflict` when somebody moves it meanwhile, `NotFound` when nothing before is known or is there.
        """
        seen = self.alias(name, alias)
        target = seen.undone
        moved: list[Alias] = []
        if target is None or target.removed:
            return alias_moves.undo_alias(self.store, seen, expect)
        version = Version.parse(f"versions/{name}/{target.version}.json")
        if version is None:
            raise IntegrityError(f"alias {name}:{alias} in {self.url} was at an impossible version {target.version!r}")

        def undo() -> None:
            if not moved:  # else it is there, and only its protection is done again
                moved.append(alias_moves.undo_alias(self.store, seen, expect))

        publishing.protected_move(self.store, version, undo)
        return moved[-1]

    def remove_alias(self, name: str, alias: str, expect: str | None = None) -> Alias:
        """Takes an alias away, which `undo_alias` brings back. Raises `NotFound`, `Conflict`."""
        self.alias(name, alias)
        return alias_moves.remove_alias(self.store, name, alias, expect)

    def show(self, ref: str | ArtifactRef) -> dict[str, Any]:
        """JSON-able: the manifest with its `digest` and `ref`, the `aliases` that point at it, and its sizes.

        `deleted`: when it was deleted, for a deleted version named by its digest; else None.
        """
        self._check_format()
        manifest, kept = history.resolve_any(self.store, ref)
        here = [name for name, alias in self.aliases(manifest.name).items() if alias.digest == manifest.digest]
        deleted = kept and kept.modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        about = {"ref": manifest.ref, "aliases": here, "deleted": deleted}
        return {**manifest.describe(), **about, **self.sizes(manifest)}

    def lineage(self, ref: str | ArtifactRef) -> dict[str, Any]:
        """The tree of ancestors, of a deleted version too; see `history.lineage`."""
        self._check_format()
        manifest, kept = history.resolve_any(self.store, ref)
        return history.lineage(self.store, manifest, deleted=kept is not None)

    def verify(self, ref: str | ArtifactRef, full: bool = False) -> verifying.VerifyReport:
        """Structure (each blob is there with its size), or with `full` every byte."""
        return verifying.verify(self.store, self.resolve(ref), full, self.threads)

    def sizes(self, ref: str | ArtifactRef | Manifest) -> dict[str, int]:
        """`logical_bytes`, `stored_bytes` (what this artifact added to its ancestors), `shared_bytes` (what they had)."""
        return history.sizes(self.store, ref if isinstance(ref, Manifest) else self.resolve(ref))

    def _check_format(self, *, writing: bool = False) -> None:
        if self._format_seen:
            return
        self._format_seen = check_format(self.store)
        if writing and not self._format_seen:
            write_format(self.store)
            self._format_seen = True

    def _publish(
        self,
        manifest: Manifest,
        aliases: list[str],
        placer: transfer.Placer,
        guard: Guard,
        claim: Claim | None,
        sign_key: Path | None = None,
    ) -> Manifest:
        def finish(published: Manifest) -> None:
            if key := signing.sign_key(sign_key):
                signing.sign(self.store, published, key)
            version = Version.of(published)
            for alias in aliases:
                alias_moves.move_alias(self.store, alias, version, published.digest, guard=guard, claim=claim)

        return publishing.publish(self.store, manifest, placer, finish, guard, claim)

    def _placer(self) -> transfer.Placer:
        return transfer.Placer(self.store, self.stats, self.threads)

    def _newest(self, name: str) -> Manifest | None:
        """The newest version, if there is one that can be read: a damaged one does not stand in the way."""
        for newest in self.versions(name)[-1:]:
            with contextlib.suppress(NotFound, IntegrityError):
                return catalog.load(self.store, newest.key, newest.digest)
        return None

    @staticmethod
    def _collect(files: Path | Mapping[str, Path]) -> dict[str, Path]:
        try:
            return transfer.collect(files)
        except OSError as error:
            raise SpecError(f"can't read {error.filename}: {error.strerror}") from None

    def _cached(self, entry: FileEntry) -> Path:
        return self._cache.blob(entry, self._fetch)

    def _fetch(self, entry: FileEntry, dest: Path) -> None:
        pieces.fetch(self.store, entry, dest)
        self.stats.add("downloaded", entry.size)

    def _write(self, manifest: Manifest, dest: Path) -> None:
        with NewFolder(dest) as folder:
            for entry in manifest.files:
                blob = self._cached(entry)
                try:
                    copy_verified(blob, folder.create(entry.path), entry)
                except (IntegrityError, FileNotFoundError):  # it went bad under an unchanged time stamp, or just went
                    self._cache.drop(entry)
                    folder.remove(entry.path)
                    copy_verified(self._cached(entry), folder.create(entry.path), entry)
            folder.appear()


def _holds(dest: Path, manifest: Manifest) -> bool:
    """True when `dest` has exactly the artifact's files, False when it is free. Raises `Conflict` otherwise."""
    hint = "choose a new or empty directory, or remove this one"
    if dest.is_symlink():
        raise Conflict(f"{dest} is a symbolic link; no link is followed", hint="give the place it points at")
    if not dest.exists():
        return False
    if not dest.is_dir():
        raise Conflict(f"{dest} exists and is no directory", hint=hint)
    found = [Path(root) / name for root, folders, names in os.walk(dest) for name in [*folders, *names]]
    if not found:
        return not manifest.files
    files = {path.relative_to(dest).as_posix(): path for path in found if path.is_symlink() or not path.is_dir()}
    wanted = {entry.path: entry.sha256 for entry in manifest.files}
    if files.keys() == wanted.keys() and all(_is_file_of(path, wanted[name]) for name, path in files.items()):
        return True
    raise Conflict(f"{dest} is not empty and is not {manifest.ref}", hint=hint)


def _is_file_of(path: Path, sha256: str) -> bool:
    return path.is_file() and not path.is_symlink() and sha256_of(path) == sha256
