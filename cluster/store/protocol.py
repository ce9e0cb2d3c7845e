"""Artifacts over a store: push, pull, references, aliases, lineage, verification.

Order of a push: hash, upload missing blobs, write the manifest (the commit), move aliases. Whatever stops it before the
commit leaves blobs that nothing names; nothing partial is ever visible.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.store import aliases as alias_moves
from cluster.store import catalog, history, transfer
from cluster.store.aliases import Alias
from cluster.store.base import Store, sha256_of
from cluster.store.cache import Cache, copy_verified
from cluster.store.layout import Version, blob_key, check_format, write_format
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound
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
        self._staged: set[str] = set()

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
    ) -> Manifest:
        """Publishes a directory, a file, or files by their path in the artifact.

        Content and description equal to the newest version's give that version again, not another one.
        """
        aliases = [check_name(alias, "alias") for alias in aliases]
        check_name(name)
        if isinstance(recipe, BaseModel):
            recipe = recipe.model_dump(mode="json")
        described = Manifest.create(name, [], kind=kind, parents=parents, recipe=recipe, metrics=metrics, facts=facts)
        manifest = Manifest.create(
            name,
            self.stage(files),
            kind=kind,
            parents=described.parents,
            recipe=recipe,
            metrics=described.metrics,
            facts=facts,
        )
        for newest in self.versions(name)[-1:]:
            with contextlib.suppress(NotFound, IntegrityError):  # a damaged one does not stand in the way
                published = catalog.load(self.store, newest.key, newest.digest)
                manifest = published if published.same_content(manifest) else manifest
        return self.commit(manifest, aliases)

    def stage(self, files: Path | Mapping[str, Path]) -> list[FileEntry]:
        """Uploads blobs only: nothing can be seen until a manifest with the entries is committed."""
        self._check_format(writing=True)
        entries = transfer.stage(self.store, files, self.stats, self.threads)
        self._staged |= {entry.sha256 for entry in entries}
        return entries

    def commit(self, manifest: Manifest, aliases: Iterable[str] = ("latest",)) -> Manifest:
        """Makes a manifest visible, then moves the aliases. Committing the same manifest again is no error.

        Raises `NotFound` when a blob of it is not in the store.
        """
        aliases = [check_name(alias, "alias") for alias in aliases]
        self._check_format(writing=True)
        transfer.in_parallel(self._check_staged, manifest.files, self.threads)
        version, data = Version.of(manifest), manifest.to_json()
        if not self.store.put_if_absent(version.key, data) and self.store.get(version.key) != data:
            raise IntegrityError(f"{version.key} in {self.url} is damaged: it is not what its name says")
        for alias in aliases:
            alias_moves.move_alias(self.store, alias, version, manifest.digest)
        return manifest

    def resolve(self, ref: str | ArtifactRef) -> Manifest:
        """Raises `NotFound` with near names and the aliases there are, `SpecError`, `IntegrityError`."""
        self._check_format()
        return catalog.resolve(self.store, ref)

    def pull(self, ref: str | ArtifactRef | Manifest, dest: Path | None = None) -> Path:
        """A directory with the verified files: `dest`, which must be new or empty, or else one in the cache.

        The one in the cache is shared and must not be written to. A `dest` that already holds exactly this artifact
        is fine; another content is a `Conflict`. After an error `dest` is as it was.
        """
        manifest = ref if isinstance(ref, Manifest) else self.resolve(ref)
        if dest is not None and _holds(dest, manifest):
            return dest
        once = {entry.sha256: entry for entry in manifest.files}
        transfer.in_parallel(self._cached, once.values(), self.threads)
        if dest is None:
            return self._cache.artifact(manifest, self._fetch)
        try:
            self._write(manifest, dest)
        except OSError as error:
            place = error.filename2 or error.filename or dest
            hint = "check the path, its permissions and the free space"
            raise BackendError(f"can't write {place}: {error.strerror or error}", hint=hint) from None
        return dest

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

    def move_alias(self, name: str, alias: str, digest: str, expect: str | None = None) -> Alias:
        """Points `name:alias` at the version with this digest (4 digits or more).

        `expect`: digits of the digest it must point at now, or "none" when it must not exist; otherwise `Conflict`.
        Raises `BackendError` for an `expect` that the server can't guarantee.
        """
        manifest = self.resolve(ArtifactRef.parse(f"{name}@{digest}"))
        return alias_moves.move_alias(self.store, alias, Version.of(manifest), manifest.digest, expect)

    def show(self, ref: str | ArtifactRef) -> dict[str, Any]:
        """JSON-able: the manifest with its `digest` and `ref`, the `aliases` that point at it, and its sizes."""
        manifest = self.resolve(ref)
        here = [name for name, alias in self.aliases(manifest.name).items() if alias.digest == manifest.digest]
        return {**manifest.describe(), "ref": manifest.ref, "aliases": here, **self.sizes(manifest)}

    def lineage(self, ref: str | ArtifactRef) -> dict[str, Any]:
        """The tree of ancestors; see `history.lineage`."""
        return history.lineage(self.store, self.resolve(ref))

    def verify(self, ref: str | ArtifactRef, full: bool = False) -> history.VerifyReport:
        """Structure (each blob is there with its size), or with `full` every byte."""
        return history.verify(self.store, self.resolve(ref), full, self.threads)

    def sizes(self, ref: str | ArtifactRef | Manifest) -> dict[str, int]:
        """`logical_bytes` and `stored_bytes` (what this artifact added to its ancestors)."""
        return history.sizes(self.store, ref if isinstance(ref, Manifest) else self.resolve(ref))

    def _check_format(self, *, writing: bool = False) -> None:
        if self._format_seen:
            return
        self._format_seen = check_format(self.store)
        if writing and not self._format_seen:
            write_format(self.store)
            self._format_seen = True

    def _check_staged(self, entry: FileEntry) -> None:
        if entry.sha256 in self._staged:
            return
        info = self.store.head(blob_key(entry.sha256))
        if info is None or info.size != entry.size:
            hint = "stage the files first"
            raise NotFound(f"{entry.path}: its content {entry.sha256[:16]} is not in {self.url}", hint=hint)

    def _cached(self, entry: FileEntry) -> Path:
        return self._cache.blob(entry, self._fetch)

    def _fetch(self, entry: FileEntry, dest: Path) -> None:
        self.store.download(blob_key(entry.sha256), dest, sha256=entry.sha256, size=entry.size)
        self.stats.add("downloaded", entry.size)

    def _write(self, manifest: Manifest, dest: Path) -> None:
        """Builds beside `dest`, then renames: it appears whole or not at all."""
        dest.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = dest.absolute().with_name(f".{dest.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            temporary.mkdir()
            for entry in manifest.files:
                target = temporary / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    copy_verified(self._cached(entry), target, entry)
                except IntegrityError:  # the cache went bad under an unchanged time stamp: fetch it anew
                    self._cache.drop(entry)
                    target.unlink()
                    copy_verified(self._cached(entry), target, entry)
            if dest.is_dir():
                dest.rmdir()  # it was empty a moment ago; somebody's new file makes this fail
            temporary.rename(dest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _holds(dest: Path, manifest: Manifest) -> bool:
    """True when `dest` has exactly the artifact's files, False when it is free. Raises `Conflict` otherwise."""
    if not dest.is_symlink() and not dest.exists():
        return False
    hint = "choose a new or empty directory, or remove this one"
    if not dest.is_dir():
        raise Conflict(f"{dest} exists and is no directory", hint=hint)
    found = {
        (Path(root) / name).relative_to(dest).as_posix(): Path(root) / name
        for root, _, names in os.walk(dest)
        for name in names
    }
    if not found and not any(dest.iterdir()):
        return not manifest.files
    wanted = {entry.path: entry for entry in manifest.files}
    if found.keys() == wanted.keys() and all(sha256_of(found[path]) == wanted[path].sha256 for path in found):
        return True
    raise Conflict(f"{dest} is not empty and is not {manifest.ref}", hint=hint)
