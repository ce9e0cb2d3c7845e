"""What a store has, as rows of plain values: the answer of `artifact ls` and of `cluster.Client.artifacts`."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from cluster.store import ArtifactStore, Version
from cluster.store.base import ObjectInfo
from cluster.store.catalog import load
from cluster.store.layout import blob_key
from cluster.store.transfer import in_parallel
from tlgan.errors import IntegrityError, NotFound, did_you_mean
from tlgan.naming import check_name

Row = dict[str, Any]


def artifact_rows(artifacts: ArtifactStore) -> list[Row]:
    """One row an artifact, by name: its newest version, every alias with what it points at, the number of versions."""
    rows = in_parallel(lambda name: _artifact(artifacts, name), artifacts.names(), artifacts.threads)
    return [row for row in rows if row]


def version_rows(artifacts: ArtifactStore, name: str, last: int | None = None) -> list[Row]:
    """One row a version of `name`, newest first, with the aliases that point at it. Raises `NotFound` with near names.

    `last`: only the newest so many are read.
    """
    versions = artifacts.versions(check_name(name))
    if not versions:
        names = artifacts.names()
        near = did_you_mean(name, names)
        raise NotFound(
            f'there is no artifact "{name}" in {artifacts.url}' + (f"; {near}" if near else ""),
            hint=f"artifacts there: {', '.join(names[:10])}" if names else "the store is empty; is it the right one?",
        )
    aliases = _aliases(artifacts, name)
    newest_first = versions[::-1][:last]
    rows = in_parallel(lambda version: _version(artifacts, version), newest_first, artifacts.threads)
    for row in rows:
        row["aliases"] = {alias: ref for alias, ref in aliases.items() if ref == row["ref"]}
    return rows


def _artifact(artifacts: ArtifactStore, name: str) -> Row | None:
    versions = artifacts.versions(name)
    if not versions:
        return None
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


def deleted_rows(artifacts: ArtifactStore, name: str | None = None) -> list[Row]:
    """One row a deleted version that is still listed, the latest deletion first.

    `restorable`: all its files are there, so that `restore` brings it back.
    """
    artifacts.names()  # refuses a store of another format
    prefix = f"deleted/{check_name(name)}/" if name else "deleted/"
    found = [
        (version, info)
        for info in artifacts.store.list(prefix)
        if (version := Version.parse("versions/" + info.key.removeprefix("deleted/")))
    ]
    blobs = {info.key: info.size for info in artifacts.store.list("blobs/")} if found else {}

    def row(pair: tuple[Version, ObjectInfo]) -> Row:
        version, info = pair
        known = {"name": version.name, "ref": version.ref, "created": version.created}
        known |= {"deleted": info.modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        try:
            manifest = load(artifacts.store, info.key, version.digest, place=version)
        except (IntegrityError, NotFound) as error:
            unknown = {"digest": None, "kind": None, "files": None, "bytes": None, "restorable": False}
            return known | unknown | {"problem": error.message}
        facts = {"digest": manifest.digest, "kind": manifest.kind, "files": len(manifest.files), "bytes": manifest.size}
        whole = all(blobs.get(blob_key(blob)) == blob.size for blob in manifest.blobs)
        return known | facts | {"restorable": whole, "problem": None}

    rows = in_parallel(row, found, artifacts.threads)
    return sorted(rows, key=lambda row: row["deleted"], reverse=True)
