"""Mending a store from another one: blobs and manifests that are missing or damaged are fetched there and put back.

    lease -> condemned lists -> blobs -> manifest (only when all its blobs are right) -> own lease

A manifest is immutable and names the keys of its blobs, so each blob goes back to the very key it had; over a damaged one it
is written in place. What a collector has condemned is left alone: it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cluster.store import leases
from cluster.store.base import Store
from cluster.store.catalog import load
from cluster.store.condemned import condemned_keys
from cluster.store.layout import FENCE, blob_key, moved
from cluster.store.moving import put_fetched, workroom
from cluster.store.transfer import in_parallel
from cluster.store.verifying import Depth, Subject, Told, Verifier, VerifyReport
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound
from tlgan.manifest import FileEntry, Manifest

THREADS = 8


class Repairer:
    """Mends `store` with what `source` has. `told` hears the bytes that were put back."""

    def __init__(self, store: Store, source: Store, threads: int = THREADS, told: Told = lambda size: None) -> None:
        self.store, self.source, self.threads, self.told = store, source, threads, told
        self._mended: set[str] = set()

    def repair(self, subject: Subject, report: VerifyReport) -> VerifyReport:
        """The report as it is afterwards: `repaired` says what was mended, `problems` what was not and why."""
        try:
            if subject.manifest is not None:
                return self._blobs(subject.manifest, report)
            manifest = load(self.source, subject.version.key, subject.digest)
            return self._manifest(manifest, report)
        except (NotFound, IntegrityError, Conflict) as error:
            return replace(report, problems=[f"{problem}; not mended: {error.message}" for problem in report.problems])

    def _blobs(self, manifest: Manifest, report: VerifyReport) -> VerifyReport:
        with self._protected(manifest) as condemned:
            failed = self._put_back(report.damaged, condemned)
        return _settled(report, failed)

    def _manifest(self, manifest: Manifest, report: VerifyReport) -> VerifyReport:
        """Its blobs first: nothing partial may be seen."""
        subject, verifier = Subject.of(manifest), Verifier(self.store, Depth(1.0), threads=self.threads)
        with self._protected(manifest) as condemned:
            if not condemned.isdisjoint(map(blob_key, manifest.blobs)):
                raise Conflict(f"blobs of {manifest.ref} are being collected; try again when that has ended")
            blobs = verifier.run(verifier.plan([subject]))[0]
            after = _settled(blobs, self._put_back(blobs.damaged, condemned))
            if after.problems:
                return replace(after, problems=[*report.problems, *after.problems])
            self._write(subject, manifest)
        return replace(after, repaired=[*after.repaired, *report.problems])

    def _write(self, subject: Subject, manifest: Manifest) -> None:
        """A lost manifest is created, so that a collector that lost patience can still put a fence into its place."""
        key, data = subject.version.key, manifest.to_json()
        if self.store.put_if_absent(key, data):
            return
        found = self.store.get(key)
        if found == FENCE:
            hint = f"`tlgan artifact copy {manifest.ref}` from the other store publishes it anew"
            raise Conflict(f"{key} was given up before it was published", hint=hint)
        if found != data:
            self.store.put(key, data, sha256=manifest.digest)

    @contextlib.contextmanager
    def _protected(self, manifest: Manifest) -> Iterator[set[str]]:
        version = Subject.of(manifest).version
        with leases.hold(self.store, map(blob_key, manifest.blobs), version.key) as lease:
            condemned = condemned_keys(self.store)
            if version.key in condemned:
                hint = "try again when the collection has ended"
                raise Conflict(f"{version.ref} is being collected in {self.store.url}", hint=hint)
            yield condemned
            if not lease.valid():
                raise BackendError(f"{version.ref}: the lease ran out on the way", hint="try again")

    def _put_back(self, entries: list[FileEntry], condemned: set[str]) -> dict[str, str]:
        """Key -> why it could not be mended."""
        reasons = in_parallel(lambda entry: self._one(entry, condemned), entries, self.threads)
        return {blob_key(entry): reason for entry, reason in zip(entries, reasons, strict=True) if reason}

    def _one(self, entry: FileEntry, condemned: set[str]) -> str | None:
        key = blob_key(entry)
        if key in condemned:
            return "a collection may delete it at any time; try again when that has ended"
        if key in self._mended:
            return None
        try:
            with workroom() as room:
                put_fetched(self.store, key, entry, self._fetch, room)
        except NotFound as error:
            return error.message
        self.told(entry.size)
        if not (wrong := Verifier(self.store).look_again(entry)):
            self._mended.add(key)
        return wrong

    def _fetch(self, entry: FileEntry, dest: Path) -> None:
        """From wherever the other store keeps this content."""
        for info in self.source.list(blob_key(moved(entry, None))):
            with contextlib.suppress(NotFound, IntegrityError):
                self.source.download(info.key, dest, sha256=entry.sha256, size=entry.size)
                return
        raise NotFound(f"{self.source.url} has no whole copy of it")


def _settled(report: VerifyReport, failed: dict[str, str]) -> VerifyReport:
    pairs = list(zip(report.damaged, report.problems, strict=True))
    return replace(
        report,
        problems=[f"{text}; not mended: {failed[blob_key(one)]}" for one, text in pairs if blob_key(one) in failed],
        damaged=[one for one, _ in pairs if blob_key(one) in failed],
        repaired=[*report.repaired, *(text for one, text in pairs if blob_key(one) not in failed)],
    )
