"""What a verification is about: versions by reference, or everything that a store holds, manifests that can't be read too."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.store.aliases import read_alias
from cluster.store.base import ObjectInfo, Store
from cluster.store.catalog import load, resolve
from cluster.store.layout import FENCE, Version, deleted_key
from cluster.store.transfer import in_parallel
from cluster.store.verifying import Subject
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import ArtifactRef

THREADS = 8


def find(store: Store, ref: str) -> Subject:
    """The version that a reference names, be its manifest damaged or lost. Raises `NotFound`, `SpecError`."""
    wanted = ArtifactRef.parse(ref)
    try:
        return Subject.of(resolve(store, wanted))
    except (IntegrityError, NotFound) as error:
        version, digest = _place_of(store, wanted)
        if version is None or store.head(deleted_key(version.key)) is not None:
            raise
        return Subject(version, digest, problem=error.message)


def find_all(store: Store) -> tuple[list[Subject], list[str]]:
    """Every version, also those that only an alias knows of, and what is wrong with aliases."""
    versions = [(info, version) for info in store.list("versions/") if (version := Version.parse(info.key))]
    loaded = in_parallel(lambda pair: _subject(store, *pair), versions, THREADS)
    subjects = {subject.version.key: subject for subject in loaded if subject}
    problems: list[str] = []
    for info in store.list("aliases/"):
        _check_alias(store, info.key, subjects, problems)
    return list(subjects.values()), problems


def without_deleted(store: Store, subjects: Iterable[Subject]) -> list[Subject]:
    """Those that still are in the store: a version may have been deleted while it was looked at."""
    return [subject for subject in subjects if subject.manifest is None or store.head(subject.version.key) is not None]


def _place_of(store: Store, wanted: ArtifactRef) -> tuple[Version | None, str]:
    if wanted.alias is not None:
        record = read_alias(store, wanted.name, wanted.alias)
        if record is None:
            return None, ""
        return Version.parse(f"versions/{wanted.name}/{record[0].version}.json"), record[0].digest
    digits = (wanted.digest or "")[:16]
    known = (Version.parse(info.key) for info in store.list(f"versions/{wanted.name}/"))
    found = [version for version in known if version and version.digest.startswith(digits)]
    return (found[0], found[0].digest) if len(found) == 1 else (None, "")


def _subject(store: Store, info: ObjectInfo, version: Version) -> Subject | None:
    """None for a fence, and for a version that is gone since it was listed."""
    try:
        if info.size == len(FENCE) and store.get(version.key, max_bytes=len(FENCE)) == FENCE:
            return None
        return Subject.of(load(store, version.key, version.digest))
    except NotFound:
        return None
    except IntegrityError as error:
        return Subject(version, version.digest, problem=error.message)


def _check_alias(store: Store, key: str, subjects: dict[str, Subject], problems: list[str]) -> None:
    _, name, file = key.split("/", 2)
    alias = f"{name}:{file.removesuffix('.json')}"
    try:
        record = read_alias(store, name, file.removesuffix(".json"))
    except IntegrityError as error:
        problems.append(f"alias {alias}: {error.message}")
        return
    version = record and Version.parse(f"versions/{name}/{record[0].version}.json")
    if record is None or (version and version.key in subjects):
        return
    if version is None:
        problems.append(f"alias {alias}: it names an impossible version {record[0].version!r}")
    elif store.head(version.key) is None:  # else it was published since the versions were listed
        problem = f"{version.key} is missing; the alias {alias} points at it"
        subjects[version.key] = Subject(version, record[0].digest, problem=problem)
