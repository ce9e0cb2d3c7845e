"""Is what the store holds whole? By structure (each blob is there with its size), or by hashing all or a share of the bytes.

A blob that several files or artifacts need is looked at once. What was hashed is written into a journal of the node's
cache, so that an interrupted verification can go on.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cluster.store.base import Store, check_digest
from cluster.store.layout import Version, blob_key
from cluster.store.transfer import size_of, stored_sizes
from cluster.store.verify_journal import Journal
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import FileEntry, Manifest

RANGE = 8 << 20
THREADS = 8

Told = Callable[[int], None]


@dataclass(frozen=True)
class Subject:
    """A version to verify. `manifest` is None when it can't be read; `problem` then says why. `digest`: as far as known."""

    version: Version
    digest: str
    manifest: Manifest | None = None
    problem: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Subject:
        return cls(Version.of(manifest), manifest.digest, manifest)


@dataclass(frozen=True)
class VerifyReport:
    """`problems` is empty when the artifact is whole. `full`: every byte was hashed, not only sizes seen.

    `read`: bytes of its blobs that were hashed, now or (after a resume) before. `damaged`: what `problems` are about, but for
    the manifest. `repaired`: what was wrong and has been mended.
    """

    ref: str
    digest: str
    files: int
    bytes: int
    full: bool
    problems: list[str] = field(default_factory=list)
    read: int = 0
    damaged: list[FileEntry] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def check(self) -> None:
        """Raises `IntegrityError` with every problem."""
        if self.problems:
            raise IntegrityError(f"{self.ref} is damaged: {'; '.join(self.problems)}")


@dataclass(frozen=True)
class Depth:
    """How much is read: a `share` of the bytes (0: none, sizes only; 1: all), in whole blobs that `seed` draws."""

    share: float = 0.0
    seed: int = 0

    def draw(self, blobs: Mapping[str, FileEntry]) -> set[str]:
        """Keys of the blobs to read, in an order that only the seed decides, until they have the share of the bytes."""
        if self.share >= 1:
            return set(blobs)
        wanted = self.share * sum(entry.size for entry in blobs.values())
        drawn: set[str] = set()
        for key in sorted(blobs, key=lambda key: hashlib.sha256(f"{self.seed}:{key}".encode()).digest()):
            if wanted <= 0:
                break
            drawn.add(key)
            wanted -= blobs[key].size
        return drawn


@dataclass(frozen=True)
class Plan:
    """All `blobs` of some artifacts by key, those whose bytes are read, and those that an earlier run has read."""

    subjects: list[Subject]
    blobs: dict[str, FileEntry]
    drawn: set[str]
    before: set[str]

    def size(self, keys: Iterable[str]) -> int:
        return sum(self.blobs[key].size for key in keys)

    @property
    def bytes(self) -> int:
        return self.size(self.blobs)


class Verifier:
    """One verification of any number of artifacts."""

    def __init__(
        self, store: Store, depth: Depth | None = None, journal: Journal | None = None, threads: int = THREADS
    ) -> None:
        self.store, self.depth, self.journal, self.threads = store, depth or Depth(), journal, threads
        self._stop = threading.Event()

    def plan(self, subjects: Sequence[Subject]) -> Plan:
        blobs = {
            blob_key(entry): entry
            for subject in subjects
            for entry in (subject.manifest.blobs if subject.manifest else ())
        }
        drawn = self.depth.draw(blobs)
        before = {key for key in drawn if self.journal and self.journal.verified.get(key) == blobs[key].size}
        return Plan(list(subjects), blobs, drawn, before)

    def run(self, plan: Plan, told: Told = lambda size: None) -> list[VerifyReport]:
        """A report of each subject. `told` hears bytes as they are read. An interrupt leaves the journal as it is by then."""
        sizes = stored_sizes(self.store, plan.blobs)

        def look(key: str) -> str | None:
            found = self._look(key, plan.blobs[key], key in plan.drawn - plan.before, sizes, told)
            if found is None and key in plan.drawn - plan.before and self.journal:
                self.journal.add(key, plan.blobs[key].size)
            return found

        wrong = dict(zip(plan.blobs, self._each(look, plan.blobs), strict=True))
        return [self._report(subject, wrong, plan) for subject in plan.subjects]

    def look_again(self, entry: FileEntry) -> str | None:
        """What is wrong with one blob, every byte read."""
        return self._look(blob_key(entry), entry, True, {}, lambda size: None)

    def _each(self, look: Callable[[str], str | None], keys: Iterable[str]) -> list[str | None]:
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tlgan-verify")
        try:
            return list(pool.map(look, keys))
        except BaseException:
            self._stop.set()  # threads end after the range they are at
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _look(self, key: str, entry: FileEntry, full: bool, sizes: Mapping[str, int | None], told: Told) -> str | None:
        size = sizes[key] if key in sizes else size_of(self.store, key)
        if size is None:
            return f"{key} is missing"
        if size != entry.size:
            return f"{key} has {size} bytes, expected {entry.size}"
        if not full:
            return None
        hasher = hashlib.sha256()
        try:
            for data in ranges(self.store, key, entry.size):
                if self._stop.is_set():
                    raise InterruptedError
                hasher.update(data)
                told(len(data))
        except NotFound:
            return f"{key} is missing"
        found = hasher.hexdigest()
        return None if found == entry.sha256 else f"{key} does not match its digest, received {found}"

    def _report(self, subject: Subject, wrong: Mapping[str, str | None], plan: Plan) -> VerifyReport:
        if subject.manifest is None:
            return VerifyReport(subject.version.ref, subject.digest, 0, 0, False, [f"manifest: {subject.problem}"])
        paths: dict[str, list[str]] = {}
        entries = {blob_key(blob): blob for blob in subject.manifest.blobs}
        for entry in subject.manifest.files:
            for key in dict.fromkeys(map(blob_key, entry.blobs)):
                paths.setdefault(key, []).append(entry.path)
        bad = [key for key in paths if wrong[key]]
        read = [key for key in paths if key in plan.drawn]
        return VerifyReport(
            subject.manifest.ref,
            subject.manifest.digest,
            len(subject.manifest.files),
            subject.manifest.size,
            full=self.depth.share > 0 and len(read) == len(paths),
            problems=[f"{', '.join(paths[key])}: {wrong[key]}" for key in bad],
            read=plan.size(read),
            damaged=[entries[key] for key in bad],
        )


def ranges(store: Store, key: str, size: int) -> Iterator[bytes]:
    """The bytes of an object in pieces that fit in memory: needs no room on disk."""
    for start in range(0, size, RANGE):
        yield store.get_range(key, start, min(start + RANGE, size))


def verified_ranges(store: Store, entry: FileEntry) -> Iterator[bytes]:
    """The bytes of a blob in pieces. Raises `IntegrityError` at the end when they are not what the entry says."""
    key, hasher = blob_key(entry), hashlib.sha256()
    for data in ranges(store, key, entry.size):
        hasher.update(data)
        yield data
    check_digest(f"{key} in {store.url}", entry.sha256, hasher.hexdigest())


def verify(store: Store, manifest: Manifest, full: bool, threads: int) -> VerifyReport:
    """One artifact: every blob is there with its size; with `full`, every byte is read and hashed."""
    verifier = Verifier(store, Depth(1.0 if full else 0.0), threads=threads)
    return verifier.run(verifier.plan([Subject.of(manifest)]))[0]
