"""A random workload over a store that goes wrong, checked after every step against a dictionary of what was acknowledged.

Everything is drawn from one seed. What a step may have done is allowed, what it acknowledged is demanded, and nothing
else may have changed; then what is seen is the new state of the dictionary.
"""

from __future__ import annotations

import hashlib
import shutil
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from random import Random
from typing import Any

from cluster.store import ABSENT, ArtifactStore, Store, Version, trash
from cluster.store.aliases import Alias
from cluster.store.catalog import find_deleted
from cluster.store.condemned import condemned_lists, forget
from cluster.store.gc import Collector
from cluster.store.layout import FENCE, blob_key
from cluster.store.retention import RESTORABLE, Policy
from tests.faults.faulty import Faulty
from tests.faults.memory_store import MemoryStore
from tlgan import manifest as manifests
from tlgan.errors import Conflict, IntegrityError, TlganError
from tlgan.manifest import Manifest
from tlgan.naming import ArtifactRef

NAMES, ALIASES = ("cats", "dogs"), ("latest", "best", "live")
NONE = timedelta(0)
Key = tuple[str, str]  # name and digest of a version
Files = dict[str, str]  # path -> sha256


@dataclass
class State:
    """What a store holds. `aliases`: "name:alias" -> (digest, digest before)."""

    live: dict[Key, Files] = field(default_factory=dict)
    deleted: dict[Key, Files] = field(default_factory=dict)
    aliases: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


@dataclass
class Allowed:
    """What a step may change: contents that may appear, versions that may be deleted or come back, targets of aliases."""

    appear: list[tuple[str, Files]] = field(default_factory=list)
    go: set[Key] = field(default_factory=set)
    back: set[Key] = field(default_factory=set)
    aliases: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class Outcome:
    """`done`: the result when it was acknowledged; otherwise the error."""

    done: Any = None
    error: TlganError | None = None


class Workload:
    """`store`: what the steps use, perhaps by way of faults; `truth`: the same store as it is."""

    def __init__(self, store: Store, truth: Store, random: Random, folder: Path) -> None:
        self.store, self.truth, self.random, self.folder = store, truth, random, folder
        self.artifacts = ArtifactStore(store, folder / "cache", threads=1)
        self.model = State()
        self.steps: Counter[str] = Counter()
        self.problems: list[str] = []
        self.calm: Callable[[], bool] = lambda: False
        self.gone_for_good: set[Key] = set()

    def step(self) -> None:
        """One operation, and the check."""
        often, seldom = [self.push, self.move, self.pull], [self.commit, self.remove, self.restore, self.forget]
        act = self.random.choice([*often, *often, *seldom, self.push, self.collect, self.collect_at_once])
        self.steps[act.__name__] += 1
        act()

    def push(self) -> None:
        name, files, folder = self._files()
        aliases = self.random.sample(ALIASES, self.random.randrange(3))
        outcome = self._try(lambda: self.artifacts.push(name, folder, kind="files", aliases=aliases))
        self._published(name, files, aliases, outcome)

    def commit(self) -> None:
        """The way of a training run: blobs first, the manifest later."""
        name, files, folder = self._files()
        pin = f"run-{self.random.randrange(3)}"
        staged = self._try(lambda: self.artifacts.stage(folder, pin))
        self._check("stage", Allowed())
        if staged.done is None:
            return
        manifest = Manifest.create(name, staged.done, kind="files")
        outcome = self._try(lambda: self.artifacts.commit(manifest, aliases=["live"]))
        self._published(name, files, ["live"], outcome)
        self._try(lambda: self.artifacts.unpin(pin))

    def move(self) -> None:
        name, alias = self.random.choice(NAMES), self.random.choice(ALIASES)
        target = self._any(name, self.model.live)
        if target is None:
            return
        current = self.model.aliases.get(f"{name}:{alias}", (ABSENT, None))[0]
        expect = self.random.choice([None, current, current, ABSENT])
        before = current
        outcome = self._try(lambda: self.artifacts.move_alias(name, alias, target[1], expect))
        after = self._check("move", Allowed(aliases={f"{name}:{alias}": {target[1]}}))
        found = after.aliases.get(f"{name}:{alias}", (ABSENT, None))[0]
        if outcome.done is not None:
            self._demand(found == target[1], f"{name}:{alias} was acknowledged as moved to {target[1]}, is at {found}")
            self._demand(expect in (None, before), f"{name}:{alias} was moved from {before}, expected {expect}")
        elif isinstance(outcome.error, Conflict) and expect is not None and expect != before:
            self._demand(found == before, f"{name}:{alias} moved to {found} against the expectation")

    def pull(self) -> None:
        name = self.random.choice(NAMES)
        wanted = self._any(name, self.model.live)
        if wanted is None:
            return
        ref, digest = f"{name}@{wanted[1][:20]}", wanted[1]
        pointing = [key for key in sorted(self.model.aliases) if key.startswith(name)]
        if pointing and self.random.random() < 0.5:
            ref = self.random.choice(pointing)
            digest = self.model.aliases[ref][0]
        dest = self.folder / "pulled" if self.random.random() < 0.5 else None
        outcome = self._try(lambda: self.artifacts.pull(ref, dest))
        if isinstance(outcome.done, Path):
            found = {path.name: _sha256(path.read_bytes()) for path in outcome.done.iterdir()}
            self._demand(found == self.model.live[name, digest], f"pull of {ref} gave other bytes: {found}")
        elif dest is not None:
            self._demand(not dest.exists(), f"{dest} is there after {outcome.error}")
        self._demand(outcome.done is not None or not self.calm(), f"pull of {ref}: {outcome.error}")
        shutil.rmtree(self.folder / "pulled", ignore_errors=True)
        if self.random.random() < 0.2:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self._check("pull", Allowed())

    def remove(self) -> None:
        victim = self._any(self.random.choice(NAMES), self.model.live)
        if victim is None:
            return
        version = self._version("versions/", victim)
        outcome = self._try(lambda: trash.remove(self.store, version) or True)
        pointed = victim[1] in {target for target, _ in self.model.aliases.values()}
        after = self._check("remove", Allowed(go=set() if pointed else {victim}))
        if outcome.done:
            self._demand(victim not in after.live, f"{version.ref} was acknowledged as deleted")

    def restore(self) -> None:
        gone = {key: files for key, files in self.model.deleted.items() if key not in self.model.live}
        wanted = self._any(self.random.choice(NAMES), gone)
        if wanted is None:
            return
        ref = ArtifactRef(wanted[0], digest=wanted[1])
        outcome = self._try(lambda: trash.restore(self.store, find_deleted(self.store, ref), threads=1))
        after = self._check("restore", Allowed(back={wanted}, appear=[(wanted[0], gone[wanted])]))
        if outcome.done:
            found = after.live.get((wanted[0], outcome.done.digest))
            self._demand(found == gone[wanted], f"{ref} was acknowledged as restored")

    def collect(self) -> None:
        self._collect(Policy(keep_last=self.random.choice([None, 1, 3]), grace=NONE))

    def collect_at_once(self) -> None:
        self._collect(Policy(keep_last=self.random.choice([None, 1, 3]), grace=NONE, restorable=NONE))

    def forget(self) -> None:
        """Nobody else is at work, so whatever was left behind is dead."""
        self._try(lambda: [forget(self.store, left.id) for left in condemned_lists(self.store)])
        self._check("forget", Allowed())

    def others_collect(self) -> None:
        """What another process does while this one sleeps: takes what nothing needs."""
        collector = Collector(self.truth, Policy(grace=NONE), threads=1)
        collector.run(collector.plan(self._now()))

    def _collect(self, policy: Policy) -> None:
        def run() -> Any:
            collector = Collector(self.store, policy, threads=1)
            return collector.run(collector.plan(self._now()))

        go: set[Key] = set()
        if policy.keep_last:
            held = {target for target, _ in self.model.aliases.values()}
            for name in NAMES:
                own = sorted((self._version("versions/", key).id, key) for key in self.model.live if key[0] == name)
                go |= {key for _, key in own[: -policy.keep_last] if key[1] not in held}
        if not policy.restorable:
            self.gone_for_good |= go | self.model.deleted.keys()
        self._try(run)
        self._check("gc", Allowed(go=go))

    def _published(self, name: str, files: Files, aliases: list[str], outcome: Outcome) -> None:
        moved = {f"{name}:{alias}": {"*"} for alias in aliases}
        after = self._check("push", Allowed(appear=[(name, files)], aliases=moved))
        if isinstance(outcome.done, Manifest):
            digest = outcome.done.digest
            self._demand(after.live.get((name, digest)) == files, f"{outcome.done.ref} was acknowledged")
            for alias in moved:
                self._demand(after.aliases[alias][0] == digest, f"{alias} was acknowledged at {digest}")
            self.gone_for_good.discard((name, digest))

    def _try(self, act: Callable[[], Any]) -> Outcome:
        try:
            return Outcome(done=act())
        except TlganError as error:
            return Outcome(error=error)
        except Exception:
            self.problems.append(traceback.format_exc())
            return Outcome(error=TlganError("no error of ours"))

    def _check(self, step: str, allowed: Allowed) -> State:
        """Compares what is there with what was, and remembers it."""
        before, after = self.model, look(self.truth)
        wrong = [f"{what} is broken" for what in after.broken]
        for key in before.live.keys() - after.live.keys():
            if key not in allowed.go or (key not in after.deleted and key not in self.gone_for_good):
                wrong.append(f"{key} is lost")
        for key, files in after.live.items():
            if key not in before.live and key not in allowed.back and (key[0], files) not in allowed.appear:
                wrong.append(f"{key} appeared")
        for alias in before.aliases.keys() | after.aliases.keys():
            wrong += self._alias(alias, before.aliases.get(alias), after, allowed)
        self.gone_for_good -= after.live.keys()
        for key in after.deleted:
            if key in self.gone_for_good or self._too_old(key):
                continue
            if not _whole(self.truth, "deleted/", key):
                wrong.append(f"{key} can't be restored any more")
        for key in before.deleted.keys() - after.deleted.keys() - after.live.keys() - self.gone_for_good:
            wrong.append(f"deleted {key} is lost")
        self.problems += [f"{step} {sum(self.steps.values())}: {what}" for what in wrong]
        self.model = after
        return after

    def _alias(self, alias: str, before: tuple[str, str | None] | None, after: State, allowed: Allowed) -> list[str]:
        now, targets = after.aliases.get(alias), allowed.aliases.get(alias, set())
        if now == before:
            return []
        if now is None or not ({now[0], "*"} & targets) or (alias.partition(":")[0], now[0]) not in after.live:
            return [f"{alias} went from {before} to {now}"]
        if now[1] != (before and before[0]):
            return [f"{alias} went from {before} to {now}: what was before is wrong"]
        return []

    def _demand(self, holds: bool, what: str) -> None:
        if not holds:
            self.problems.append(f"step {sum(self.steps.values())}: {what}")

    def _files(self) -> tuple[str, Files, Path]:
        """Few contents, so that versions share blobs and come again after they were deleted."""
        folder = self.folder / "source"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files = {}
        for path in ("a.bin", "b.bin")[: self.random.randrange(1, 3)]:
            data = f"content {self.random.randrange(6)} ".encode() * 20
            (folder / path).write_bytes(data)
            files[path] = _sha256(data)
        return self.random.choice(NAMES), files, folder

    def _any(self, name: str, among: dict[Key, Files]) -> Key | None:
        own = [key for key in among if key[0] == name]  # in the order of their times, which a seed repeats
        return self.random.choice(own) if own else None

    def _version(self, prefix: str, key: Key) -> Version:
        for info in self.truth.list(f"{prefix}{key[0]}/"):
            version = Version.parse("versions/" + info.key.removeprefix(prefix))
            if version and key[1].startswith(version.digest):
                return version
        raise AssertionError(f"{key} is not below {prefix}")

    def _now(self) -> Any:
        return getattr(self.truth, "now", None)

    def _too_old(self, key: Key) -> bool:
        info = self.truth.head("deleted/" + self._version("deleted/", key).key.removeprefix("versions/"))
        return info is not None and self._now() is not None and self._now() - info.modified > RESTORABLE


def look(store: Store) -> State:
    """Everything that can be seen, each byte of it hashed."""
    state = State()
    for prefix, found in (("versions/", state.live), ("deleted/", state.deleted)):
        for info in store.list(prefix):
            data = store.get(info.key)
            if data == FENCE:
                continue
            try:
                manifest = Manifest.from_json(data)
            except IntegrityError as error:
                state.broken.append(f"{info.key}: {error.message}")
                continue
            found[manifest.name, manifest.digest] = {entry.path: entry.sha256 for entry in manifest.files}
            if prefix == "versions/" and not _complete(store, manifest):
                state.broken.append(manifest.ref)
    for info in store.list("aliases/"):
        record = Alias.model_validate_json(store.get(info.key))
        state.aliases[f"{record.name}:{record.alias}"] = record.digest, record.prev and record.prev.digest
    return state


def _whole(store: Store, prefix: str, key: Key) -> bool:
    for info in store.list(f"{prefix}{key[0]}/"):
        if key[1][:16] in info.key:
            return _complete(store, Manifest.from_json(store.get(info.key)))
    return False


def _complete(store: Store, manifest: Manifest) -> bool:
    blobs = {blob_key(entry): entry for entry in manifest.blobs}
    return all(
        (info := store.head(key)) is not None and info.size == entry.size and _sha256(store.get(key)) == entry.sha256
        for key, entry in blobs.items()
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Report:
    """What a workload came to."""

    seed: int
    steps: Counter[str]
    faults: Counter[str]
    problems: list[str]


class Clock:
    """Each look at it is a millisecond later, so that a seed repeats all times."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self, zone: tzinfo | None = None) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


@contextmanager
def seeded(random: Random, clock: Clock) -> Iterator[None]:
    """Ids and times of what is stored come from here: with them a damaged byte is the same in every run of a seed."""
    saved = uuid.uuid4, manifests.datetime
    uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128), version=4)
    manifests.datetime = clock  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        uuid.uuid4, manifests.datetime = saved  # type: ignore[misc]


def run(seed: int, steps: int, folder: Path, most_faults: int | None = None) -> Report:
    """`steps` steps on a store in memory; ends at the first problem, or when `most_faults` were seen."""
    random, clock = Random(seed), Clock()
    truth = MemoryStore(clock=clock.now)
    faulty = Faulty(truth, random)
    workload = Workload(faulty, truth, random, folder)
    workload.calm = lambda: faulty.rate == 0

    def sleep() -> None:
        past = timedelta(seconds=int(random.random() * 1800))
        clock.time += past
        if random.random() < 0.5:
            workload.others_collect()

    faulty.sleep = sleep
    with seeded(Random(-seed), clock):
        for _ in range(steps):
            faulty.rate = random.choice([0.0, 0.02, 0.1, 0.3])
            workload.step()
            if workload.problems or (most_faults and sum(faulty.seen.values()) >= most_faults):
                break
    return Report(seed, workload.steps, faulty.seen, workload.problems)
