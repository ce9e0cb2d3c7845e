"""The verbs of the store for Python.

    import cluster, tlgan
    client = cluster.Client("s3://bucket/prefix")
    g = tlgan.load_generator(client.pull("digits32:best"))

Errors are those of `tlgan.errors`, with the same words as on the command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster.contents import look_into
from cluster.listing import artifact_rows, version_rows
from cluster.runs import Runs
from cluster.store import ArtifactStore, open_store
from tlgan.manifest import Manifest


class Client:
    """A store at `url`: `file:///path`, a path, or `s3://bucket/prefix`; default: `$TLGAN_STORE`, then `.tlgan/store` here.

    Opening touches nothing: a store that can't be reached shows on the first call, as `BackendError`.
    """

    def __init__(self, url: str | None = None, *, cache_dir: Path | str | None = None) -> None:
        self.store = ArtifactStore(open_store(url), None if cache_dir is None else Path(cache_dir))

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    @property
    def url(self) -> str:
        return self.store.url

    def pull(
        self, ref: str, dest: Path | str | None = None, *, allow_unsafe: bool = False, verify_key: Path | None = None
    ) -> Path:
        """A directory with the files of `ref`, every byte verified: `dest` (new or empty), or else one in the cache.

        The one in the cache is shared: don't write to it. Raises `NotFound` with near names, `IntegrityError` (then nothing
        is left at `dest`), `Conflict` for a `dest` with other content, `SpecError` for a reference without a version.
        """
        where = None if dest is None else Path(dest).expanduser()
        return self.store.pull(ref, where, allow_unsafe=allow_unsafe, verify_key=verify_key)

    def push(
        self, path: Path | str, name: str, *, kind: str | None = None, aliases: Iterable[str] = ("latest",)
    ) -> Manifest:
        """Publishes a directory or a file and moves `aliases` to it. Its `ref` names exactly this version.

        `kind`: see `cluster.contents.look_into`; default: a model when it is one that loads, else `files`.
        """
        found = look_into(Path(path), kind)
        return self.store.push(
            name, found.path, kind=found.kind, recipe=found.recipe, facts=found.facts, aliases=tuple(aliases)
        )

    def resolve(self, ref: str) -> Manifest:
        """The manifest behind `name:alias` or `name@digest`."""
        return self.store.resolve(ref)

    def show(self, ref: str) -> dict[str, Any]:
        """What `artifact show --json` prints."""
        return self.store.show(ref)

    def artifacts(self, name: str | None = None) -> list[dict[str, Any]]:
        """The newest version of every artifact, or all versions of `name`, newest first; as `artifact ls --json`."""
        return artifact_rows(self.store) if name is None else version_rows(self.store, name)

    def ls(self) -> list[dict[str, Any]]:
        """Summaries of all runs, newest first; as `ls --json`."""
        return [record.summary() for record in Runs(self.store.store).list()]
