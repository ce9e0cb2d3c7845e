"""What a store has, as rows of plain values: the answer of `artifact ls` and of `cluster.Client.artifacts`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from cluster.store import ArtifactStore, Version
from cluster.store.catalog import load
from cluster.store.transfer import in_parallel
from tlgan.errors import IntegrityError, NotFound, did_you_mean
from tlgan.naming import check_name

Row = dict[str, Any]


def artifact_rows(artifacts: ArtifactStore) -> list[Row]:
    """One row an artifact, by name: its newest version, every alias with what it points at, the number of versions."""
    found: dict[str, list[Version]] = defaultdict(list)
    artifacts.names()  # refuses a store of another format
    for info in artifacts.store.list("versions/"):
        if version := Version.parse(info.key):
            found[version.name].append(version)
    groups = [sorted(found[name], key=lambda version: version.id) for name in sorted(found)]
    return in_parallel(lambda group: _artifact(artifacts, group), groups, artifacts.threads)


def version_rows(artifacts: ArtifactStore, name: str) -> list[Row]:
    """One row a version of `name`, newest first, with the aliases that point at it. Raises `NotFound` with near names."""
    versions = artifacts.versions(check_name(name))
    if not versions:
        names = artifacts.names()
        near = did_you_mean(name, names)
        raise NotFound(
            f'there is no artifact "{name}" in {artifacts.url}' + (f"; {near}" if near else ""),
            hint=f"artifacts there: {', '.join(names[:10])}" if names else "the store is empty; is it the right one?",
        )
    aliases = _aliases(artifacts, name)
    newest_first = versions[::-1]
    rows = in_parallel(lambda version: _version(artifacts, version), newest_first, artifacts.threads)
    for row in rows:
        row["aliases"] = {alias: ref for alias, ref in aliases.items() if ref == row["ref"]}
    return rows


def _artifact(artifacts: ArtifactStore, versions: list[Version]) -> Row:
    row = _version(artifacts, versions[-1])
    return {**row, "aliases": _aliases(artifacts, versions[-1].name), "versions": len(versions)}


def _version(artifacts: ArtifactStore, version: Version) -> Row:
    """A damaged manifest is a row with a `problem`: it does not hide the others."""
    known = {"name": version.name, "ref": version.ref, "created": version.created}
    try:
        manifest = load(artifacts.store, version.key, version.digest)
    except (IntegrityError, NotFound) as error:
        return {**known, "digest": None, "kind": None, "files": None, "bytes": None, "problem": error.message}
    facts = {"digest": manifest.digest, "kind": manifest.kind, "files": len(manifest.files), "bytes": manifest.size}
    return {**known, **facts, "problem": None}


def _aliases(artifacts: ArtifactStore, name: str) -> dict[str, str]:
    """Alias -> the pinned reference it stands for; those that can't be read are left out (`resolve` says why)."""
    try:
        return {alias: f"{name}@{found.digest[:16]}" for alias, found in artifacts.aliases(name).items()}
    except IntegrityError:
        return {}
