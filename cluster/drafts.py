"""Drafts: what an attempt of a training made, as a list of files by digest, before it is published.

runs/<run>/draft-<attempt>.json     `files`, `nimg`, `metrics`, `coverage`, `channels`; without a number by older versions

Its blobs are in the store under a pin of the attempt's own: neither document nor pin is another attempt's to overwrite.
"""

from __future__ import annotations

import re
from typing import Any

from cluster.runs import Runs
from cluster.store import ArtifactStore, leases
from cluster.store.base import Store
from cluster.store.condemned import condemned_keys
from cluster.store.layout import blob_key
from cluster.store.transfer import in_parallel
from tlgan.manifest import FileEntry, blobs_of

_NAME = re.compile(r"draft(?:-(\d+))?\.json")


def pin_name(run: str, attempt: int) -> str:
    """Under which the blobs of a draft are safe until it is published; staging the next draft frees the last."""
    return f"run-{run}/{attempt}"


def put_draft(store: Store, run: str, attempt: int, document: dict[str, Any]) -> None:
    Runs(store).put_json(run, f"draft-{attempt}.json", document)


def get_draft(store: Store, run: str, attempt: int) -> dict[str, Any] | None:
    """The newest draft of the attempts up to `attempt`; None without one."""
    prefix = f"runs/{run}/"
    names = (info.key.removeprefix(prefix) for info in store.list(f"{prefix}draft"))
    found = {int(match[1] or 0): match[0] for name in names if (match := _NAME.fullmatch(name))}
    known = [number for number in found if number <= attempt]
    document: dict[str, Any] | None = Runs(store).get_json(run, found[max(known)]) if known else None
    return document


def files_of(draft: dict[str, Any]) -> list[FileEntry]:
    return [FileEntry.model_validate(entry) for entry in draft["files"]]


def keep_draft(artifacts: ArtifactStore, run: str, attempt: int, draft: dict[str, Any]) -> bool:
    """Pins the blobs of an earlier attempt's draft for this one. False when a collector has taken some, or may."""
    keys = {blob_key(blob): blob.size for blob in blobs_of(files_of(draft))}
    name = pin_name(run, attempt)
    leases.pin(artifacts.store, name, keys)
    if condemned_keys(artifacts.store).isdisjoint(keys):
        infos = in_parallel(artifacts.store.head, keys, artifacts.threads)
        if all(info and info.size == size for info, size in zip(infos, keys.values(), strict=True)):
            return True
    leases.unpin(artifacts.store, name)
    return False


def unpin_all(store: Store, run: str) -> None:
    """Gives the drafts of a run, of its trials and of all attempts free: what is worth keeping is published."""
    own = re.compile(re.escape(f"leases/pin-run-{run}") + r"(\.trials\.\d+)?(\.\d+)?\.json")
    for info in list(store.list(f"leases/pin-run-{run}")):
        if own.fullmatch(info.key):
            leases.drop(store, info.key.removeprefix("leases/").removesuffix(".json"))
