"""Large files lie in a bucket as pieces, each a blob of its own digest: they are sent while the file is still being hashed.

A blob's key is its digest, so one blob could be sent only when all of it is hashed. A push that was killed finds the pieces that it
had sent, two files share those that are equal, and no server has to join them.

    read and hash -> lease on a few keys -> condemned lists -> send, while the next few are read

Nothing names the pieces before the manifest does, under a lease of its own; see `publish.py`. If theirs is whole when that one is
held, and they are not condemned, they are all still there. A file that comes down whole is held
against its own digest. In a directory nothing is gained, so files lie there as they are, but for copies of what a bucket had.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from cluster.store import leases
from cluster.store.base import Store, check_digest
from cluster.store.claim import Claim
from cluster.store.layout import blob_key
from cluster.store.publish import reserve
from cluster.store.transfer import Placer, Stretch, changed, describe
from cluster.store.verifying import verified_ranges
from tlgan.errors import SpecError
from tlgan.manifest import MAX_PIECES, FileEntry, Piece

IN_MEMORY = 5  # pieces: read, hashed or on their way
TOGETHER = 2  # pieces to a lease


@dataclass(frozen=True)
class Rule:
    """Which files lie in pieces: those of `start` bytes and more. `size` of each, but for the last; `most` of a file."""

    start: int = 128 << 20
    size: int = 16 << 20
    most: int = 4096

    def choose(self, files: Mapping[str, Path]) -> set[str]:
        """Names of the files to store in pieces: no more than a manifest takes."""
        chosen, left = set(), MAX_PIECES
        for name, path in files.items():
            try:
                size = path.stat().st_size
            except OSError as error:
                raise SpecError(f"can't read {path}: {error.strerror}") from None
            count = -(-size // self.size)
            if size >= self.start and count <= min(self.most, left):
                chosen.add(name)
                left -= count
        return chosen


@contextlib.contextmanager
def taken_in(placer: Placer, files: Mapping[str, Path], claim: Claim | None = None) -> Iterator[list[FileEntry]]:
    """Describes files by their path in the artifact, and sends what goes up in pieces: those are safe in the block.

    `placer` knows afterwards where everything is at hand. Raises `SpecError` for what can't be read, `Conflict` for a file that
    changes meanwhile.
    """
    rule: Rule | None = getattr(placer.store, "pieces", None)
    large = rule.choose(files) if rule else set()
    small = {name: path for name, path in files.items() if name not in large}
    entries = describe(placer.store, small, placer.threads)
    placer.sources.update({entry.sha256: small[entry.path] for entry in entries})
    if rule is None or not large:
        yield entries
        return
    with leases.hold(placer.store, [], claim=claim) as lease:
        for name in sorted(large):
            try:
                entries.append(_Sender(placer, rule, lease, name, files[name]).send())
            except OSError as error:
                raise SpecError(f"can't read {files[name]}: {error.strerror}") from None
        placer.safe = lease.valid
        yield sorted(entries, key=lambda entry: entry.path)


def fetch(store: Store, entry: FileEntry, dest: Path) -> None:
    """A file's bytes to a new file, verified. Raises `NotFound`, `IntegrityError`; after an error `dest` does not exist."""
    if entry.pieces is None:
        store.download(blob_key(entry), dest, sha256=entry.sha256, size=entry.size)
        return
    join = getattr(store, "download_joined", None)  # at once where it can
    if join is not None:
        join([(blob_key(blob), blob.size) for blob in entry.blobs], dest, sha256=entry.sha256)
        return
    hasher = hashlib.sha256()
    try:
        with dest.open("xb") as target:
            for blob in entry.blobs:
                for data in verified_ranges(store, blob):
                    hasher.update(data)
                    target.write(data)
        check_digest(f"{entry.path} in {store.url}", entry.sha256, hasher.hexdigest())
    except BaseException:
        dest.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Read:
    """A piece in memory, and its digest when that is known."""

    start: int
    data: bytes
    digest: Future[str]


class _Sender:
    """One file on its way up. One thread reads and hashes all of it, others hash and send the pieces, one leases their keys."""

    def __init__(self, placer: Placer, rule: Rule, lease: leases.Held, name: str, path: Path) -> None:
        self.placer, self.rule, self.lease, self.name, self.path = placer, rule, lease, name, path
        self._room = threading.Semaphore(IN_MEMORY)
        self._sending: list[Future[None]] = []
        self._failed = threading.Event()

    def send(self) -> FileEntry:
        before, hasher = self.path.stat(), hashlib.sha256()
        leasing: list[Future[list[Piece]]] = []
        with (
            ThreadPoolExecutor(IN_MEMORY, thread_name_prefix="tlgan-pieces") as self._pool,
            ThreadPoolExecutor(1, thread_name_prefix="tlgan-lease") as keeper,
        ):
            try:
                for batch in self._batches(hasher):
                    leasing.append(keeper.submit(self._lease_and_send, batch))
                    del batch
                pieces = [piece for job in leasing for piece in job.result()]
                for job in self._sending:
                    job.result()
            finally:
                self._failed.set()
                wait(leasing)
                wait(self._sending)
        after = self.path.stat()
        size = sum(piece.size for piece in pieces)
        if (size, before.st_mtime_ns) != (before.st_size, after.st_mtime_ns):
            raise changed(self.path)
        return FileEntry(path=self.name, size=size, sha256=hasher.hexdigest(), pieces=pieces)

    def _batches(self, hasher: hashlib._Hash) -> Iterator[list[_Read]]:
        """The file from its front, a few pieces at a time; ends early when something has failed."""
        batch: list[_Read] = []
        start = 0
        with self.path.open("rb") as file:
            while self._enter() and (data := file.read(self.rule.size)):
                batch.append(_Read(start, data, self._pool.submit(_sha256, data)))
                hasher.update(data)
                start += len(data)
                if len(batch) == TOGETHER or len(data) < self.rule.size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _enter(self) -> bool:
        """Waits for room for one piece. False when there is no use in reading on."""
        self._room.acquire()
        return not self._failed.is_set()

    def _lease_and_send(self, batch: list[_Read]) -> list[Piece]:
        """The pieces at the keys where they go. They are leased one batch after the other, and sent in any order."""
        try:
            entries = [FileEntry(path=self.name, size=len(one.data), sha256=one.digest.result()) for one in batch]
            entries = reserve(self.placer.store, entries, self.lease.add)
        except BaseException:
            self._fail()
            raise
        for one, entry in zip(batch, entries, strict=True):
            self.placer.sources[entry.sha256] = Stretch(self.path, one.start, entry.size)
            self._sending.append(self._pool.submit(self._send, entry, one.data))
        return [Piece.model_validate(entry.model_dump(exclude={"path"}, exclude_unset=True)) for entry in entries]

    def _send(self, entry: FileEntry, data: bytes) -> None:
        try:
            if not self._failed.is_set():
                self.placer.place_data(entry, data)
        except BaseException:
            self._fail()
            raise
        finally:
            self._room.release()

    def _fail(self) -> None:
        self._failed.set()
        self._room.release(IN_MEMORY)  # whoever waits for room learns of it


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
