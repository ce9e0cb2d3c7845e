"""Presigned URLs: for a while, whoever has one can read one blob with the rights of the key that signed it.

A URL can't be taken back by itself; disabling its access key does it. So URLs are given to the caller and written nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cluster.store.base import Store
from cluster.store.layout import blob_key
from tlgan.errors import IntegrityError, NotFound, SpecError, did_you_mean
from tlgan.manifest import FileEntry, Manifest

MAX_SECONDS = 7 * 24 * 3600
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class SharedFile:
    """`urls`: one, or one for each piece of the file, from its front."""

    entry: FileEntry
    urls: list[str]

    def __repr__(self) -> str:
        return f"SharedFile({self.entry.path!r})"  # the URL is as good as a key


@dataclass(frozen=True)
class Shared:
    """`expires` in UTC; `access_key`: whose rights the URLs carry; `session`: it is a temporary key, and they end with it."""

    files: list[SharedFile]
    expires: str
    access_key: str
    session: bool


def duration(text: str) -> int:
    """Seconds of `90s`, `15min`, `1h` or `7d`. Raises `SpecError`, also above seven days."""
    match = re.fullmatch(r"(\d{1,9}) ?(s|min|h|d)", text.strip())
    if match is None or int(match[1]) == 0:
        raise SpecError(f"{text!r} is no length of time", hint="as in 90s, 15min, 1h or 7d")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > MAX_SECONDS:
        raise SpecError(f"URLs can't work for {text}", hint="S3 allows seven days at most: 7d")
    return seconds


def presign(store: Store, manifest: Manifest, paths: Sequence[str], seconds: int) -> Shared:
    """URLs for each of `paths` (none: all files): one, or as many as a file has pieces.

    Raises `SpecError` for a store that is no bucket, `NotFound`, `IntegrityError` for a blob that is not there.
    """
    sign = getattr(store, "presign", None)
    if sign is None:
        hint = f"tlgan artifact export {manifest.ref} FILE.tar writes a file that can be handed on"
        raise SpecError(f"{store.url} is a directory: there is no server that could answer a URL", hint=hint)
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    files = [
        SharedFile(entry, [_signed(store, sign, blob, seconds) for blob in entry.blobs])
        for entry in _chosen(manifest, paths)
    ]
    key, session = _signer(files[0].urls[0]) if files else ("", False)
    return Shared(files, until.strftime("%Y-%m-%dT%H:%M:%SZ"), key, session)


def _chosen(manifest: Manifest, paths: Sequence[str]) -> list[FileEntry]:
    known = {entry.path: entry for entry in manifest.files}
    for path in paths:
        if path not in known:
            hint = did_you_mean(path, known) or f"`tlgan artifact show {manifest.ref}` lists its files"
            raise NotFound(f"{manifest.ref} has no file {path!r}", hint=hint)
    if not known:
        raise NotFound(f"{manifest.ref} has no files to share")
    return [known[path] for path in dict.fromkeys(paths)] or list(known.values())


def _signed(store: Store, sign: Any, entry: FileEntry, seconds: int) -> str:
    key = blob_key(entry)
    info = store.head(key)
    if info is None or info.size != entry.size:
        hint = "`tlgan artifact verify` says what else is wrong with it"
        raise IntegrityError(
            f"{entry.path}: {key} is {'missing' if info is None else 'damaged'} in {store.url}", hint=hint
        )
    return str(sign(key, seconds, entry.path.rpartition("/")[2]))


def _signer(url: str) -> tuple[str, bool]:
    query = parse_qs(urlsplit(url).query)
    return query.get("X-Amz-Credential", ["?"])[0].partition("/")[0], "X-Amz-Security-Token" in query
