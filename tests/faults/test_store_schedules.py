"""The real `publish`, `Collector.run`, `remove`, `restore` and alias moves under every schedule of their store calls.

What is promised to somebody is written down as it is said, and looked after at every change of the store, as in
`protocol_model.py`, whose steps these are. A collector may take any lease for expired.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults.memory_store import MemoryStore
from faults.schedules import NOON, Names, OwnView, Program, Run, explore, sample

from cluster.store import leases, trash
from cluster.store.aliases import move_alias
from cluster.store.catalog import deleted_versions
from cluster.store.gc import Collector
from cluster.store.layout import FENCE, Version, alias_key, blob_key, deleted_key
from cluster.store.publish import protected_move, publish, stage
from cluster.store.retention import Policy
from cluster.store.transfer import Placer, TransferStats
from tlgan.errors import NotFound
from tlgan.manifest import FileEntry, Manifest

LONG = pytest.mark.skipif("TLGAN_LONG_TESTS" not in os.environ, reason="minutes; set TLGAN_LONG_TESTS to run it")
DATA = b"weights"
SHA = hashlib.sha256(DATA).hexdigest()
ENTRY = FileEntry(path="model.bin", size=len(DATA), sha256=SHA)
BLOB = blob_key(ENTRY)

TAKES_ALL = Policy(older_than=timedelta(0), names=("old",), restorable=timedelta(0), grace=timedelta(0))
KEEPS_DELETED = Policy(older_than=timedelta(0), names=("old",), grace=timedelta(0))


def manifest_of(name: str) -> Manifest:
    return Manifest.create(name, [ENTRY], kind="files", created="2030-01-01T11:00:00.000000Z")


OLD = manifest_of("old")
PLACE = Version.of(OLD)


@dataclass
class World:
    """The store and what was promised. `watch` is told of every call, and finds what breaks a promise."""

    store: MemoryStore
    source: Path
    partials_allowed: bool
    deletions_are_kept: bool
    acked: dict[str, tuple[Manifest, set[str]]] = field(default_factory=dict)
    undo: dict[str, Manifest] = field(default_factory=dict)
    aliased: dict[str, str] = field(default_factory=dict)
    condemned: dict[str, set[str]] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    read: dict[str, set[str]] = field(default_factory=dict)
    asked: dict[str, set[str]] = field(default_factory=dict)
    deleted_by: dict[str, str] = field(default_factory=dict)
    planning: set[str] = field(default_factory=set)
    views: dict[str, OwnView] = field(default_factory=dict)
    promises: int = 0
    problems: set[str] = field(default_factory=set)

    def promise(self, manifest: Manifest) -> None:
        """It counts from when the process looked at its lease; whoever decided later may delete the version."""
        key = Version.of(manifest).key
        against = {one for one in self.asked.get(threading.current_thread().name, ()) if key in self.condemned[one]}
        if key in self.store.items or self.deleted_by.get(key) in against:
            self.acked[key] = manifest, against
            self.promises += 1
            self.check()

    def promise_alias(self, alias: str) -> None:
        self.promises += 1
        key = alias_key("old", alias)
        self.aliased[key] = f"versions/old/{json.loads(self.store.get(key))['version']}.json"

    def watch(self, me: str, name: str, key: str) -> None:
        self._follow(me, name, key)
        if name in ("get", "read", "head", "list", "folders", "download"):
            return
        if name == "put" and key.startswith("gc/"):
            self.condemned[me] = set(json.loads(self.store.get(key))["keys"])
        if name == "put" and key == deleted_key(PLACE.key) and self.deletions_are_kept and self._whole(OLD):
            self.undo[key] = OLD
        if name == "delete":
            self.deleted_by[key] = me
            if key in self.acked and me not in self.acked[key][1]:
                del self.acked[key]
        if key.startswith("aliases/"):
            self.aliased.pop(key, None)
        self.check()

    def _follow(self, me: str, name: str, key: str) -> None:
        """Who has made up his mind: about a lease when he has read it, about all when he has read the last."""
        if me in self.condemned and name == "list" and key == "leases/":
            self.read[me] = set()
        elif me in self.read and name == "read" and key.startswith("leases/"):
            self.read[me].add(key)
        elif me in self.read:
            self.decided.add(me)
        if name == "list" and key.startswith("leases/") and key != "leases/":
            self.asked[me] = self.decided | {one for one, keys in self.read.items() if f"{key}json" in keys}
            self.asked[me].discard(me)

    def check(self) -> None:
        for key, (manifest, _) in self.acked.items():
            if self._content(key) != manifest.to_json() or not self._whole(manifest):
                self.problems.add("an acknowledged version lacks data")
        for key, (data, _) in self.store.items.items():
            visible = key.startswith("versions/") and data != FENCE
            if visible and not self.partials_allowed and not self._whole(Manifest.from_json(data)):
                self.problems.add("a partial version is visible")
        for key, manifest in self.undo.items():
            there = key in self.store.items or Version.of(manifest).key in self.store.items
            if not there or not self._whole(manifest):
                self.problems.add("a deletion can't be undone")
        for version in self.aliased.values():
            if self._content(version) in (None, FENCE):
                self.problems.add("an alias points at nothing")

    def _whole(self, manifest: Manifest) -> bool:
        return all(blob_key(entry) in self.store.items for entry in manifest.blobs)

    def _content(self, key: str) -> bytes | None:
        return self.store.items[key][0] if key in self.store.items else None


Act = Callable[[World, OwnView], None]


def placer(world: World, view: OwnView) -> Placer:
    return Placer(view, TransferStats(), 1, {SHA: world.source})


def push(name: str, alias: str | None = None) -> Act:
    def act(world: World, view: OwnView) -> None:
        def finish(manifest: Manifest) -> None:
            if alias:
                move_alias(view, alias, Version.of(manifest), manifest.digest)

        world.promise(publish(view, manifest_of(name), placer(world, view), finish))
        if alias:
            world.promise_alias(alias)

    return act


def commit_staged(world: World, view: OwnView) -> None:
    entries = stage(view, [ENTRY], placer(world, view), "draft")
    manifest = manifest_of("new").model_copy(update={"files": entries})
    world.promise(publish(view, manifest, Placer(view, TransferStats(), 1), lambda published: None))


def collect(policy: Policy) -> Act:
    return partial(_collect, policy)


def _collect(policy: Policy, world: World, view: OwnView) -> None:
    me = threading.current_thread().name
    collector = Collector(view, policy, threads=1)
    world.planning.add(me)
    plan = collector.plan(world.store.now + timedelta(seconds=1))
    world.planning.remove(me)
    collector.run(plan)


def remove(world: World, view: OwnView) -> None:
    trash.remove(view, PLACE)


def restore(world: World, view: OwnView) -> None:
    world.promise(trash.restore(view, PLACE, threads=1))


def point(world: World, view: OwnView) -> None:
    protected_move(view, PLACE, lambda: move_alias(view, "best", PLACE, OLD.digest))
    world.promise_alias("best")


def time_passes(world: World, view: OwnView) -> None:
    view.choose(1)
    world.store.advance(timedelta(days=30))
    world.undo.clear()


Start = dict[str, bytes]
ORPHAN: Start = {BLOB: DATA}
PUBLISHED: Start = {BLOB: DATA, PLACE.key: OLD.to_json()}
DELETED: Start = {BLOB: DATA, deleted_key(PLACE.key): OLD.to_json()}

PAIRS: dict[str, tuple[Start, dict[str, Act]]] = {
    "push of new content": ({}, {"push": push("new"), "gc": collect(TAKES_ALL)}),
    "push over an orphan": (ORPHAN, {"push": push("new"), "gc": collect(TAKES_ALL)}),
    "push of a version's content": (PUBLISHED, {"push": push("new"), "gc": collect(TAKES_ALL)}),
    "push of a version again": (PUBLISHED, {"push": push("old"), "gc": collect(TAKES_ALL)}),
    "push of a version again, deletions are kept": (PUBLISHED, {"push": push("old"), "gc": collect(KEEPS_DELETED)}),
    "push with an alias": (PUBLISHED, {"push": push("old", "best"), "gc": collect(TAKES_ALL)}),
    "push of a version again, removal": (PUBLISHED, {"push": push("old"), "rm": remove}),
    "staged and committed": (ORPHAN, {"push": commit_staged, "gc": collect(TAKES_ALL)}),
    "alias move": (PUBLISHED, {"alias": point, "gc": collect(TAKES_ALL)}),
    "alias move, removal": (PUBLISHED, {"alias": point, "rm": remove}),
    "restore": (DELETED, {"restore": restore, "gc": collect(TAKES_ALL)}),
    "restore, removal": (DELETED, {"restore": restore, "rm": remove}),
    "two restores": (DELETED, {"restore": restore, "again": restore}),
}
GROUPS: dict[str, tuple[Start, dict[str, Act]]] = {
    "two pushes": (ORPHAN, {"push": push("new"), "twin": push("new"), "gc": collect(TAKES_ALL)}),
    "two collectors": (ORPHAN, {"push": push("new"), "gc": collect(TAKES_ALL), "gc2": collect(TAKES_ALL)}),
    "two collectors, push of a version again": (
        PUBLISHED,
        {"push": push("old", "best"), "gc": collect(TAKES_ALL), "gc2": collect(KEEPS_DELETED)},
    ),
    "alias move, removal, collector": (PUBLISHED, {"alias": point, "rm": remove, "gc": collect(KEEPS_DELETED)}),
    "restore, time": (DELETED, {"restore": restore, "time": time_passes, "gc": collect(KEEPS_DELETED)}),
    "restore, time, removal": (
        DELETED,
        {"restore": restore, "time": time_passes, "rm": remove, "gc": collect(KEEPS_DELETED)},
    ),
}
LATER = {"restore, time, removal", "alias move, removal, collector", "two collectors, push of a version again"}


class Scene:
    """Makes runs of a case, and looks at what each left."""

    def __init__(self, case: tuple[Start, dict[str, Act]], source: Path, monkeypatch: Any, create_only: bool) -> None:
        self.start, self.acts = case
        self.source, self.create_only = source, create_only
        self.promises = 0
        self.world: World | None = None
        self.run: Run | None = None
        self.names = Names()
        stand_in = SimpleNamespace(uuid4=self.names.uuid4)
        for module in ("leases", "publish", "condemned", "aliases"):
            monkeypatch.setattr(f"cluster.store.{module}.uuid", stand_in)
        for module in ("leases", "publish", "condemned", "aliases", "trash"):
            monkeypatch.setattr(f"cluster.store.{module}.now_utc", self.names.now_utc)
        monkeypatch.setattr("cluster.store.aliases.time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setattr(leases, "expired", self._expired)

    def __call__(self, decide: Callable[..., int | None]) -> Run:
        self._look()
        self.names.counts.clear()
        store = MemoryStore(create_only=self.create_only, compare_and_swap=self.create_only, clock=lambda: NOON)
        for key, data in self.start.items():
            store.put(key, data)
        kept = not any(getattr(act, "args", ()) == (TAKES_ALL,) for act in self.acts.values())
        self.world = world = World(store, self.source, not self.create_only, kept)
        if PLACE.key in self.start:
            world.promise(OLD)
        if deleted_key(PLACE.key) in self.start and kept:
            world.undo[deleted_key(PLACE.key)] = OLD

        def program(me: str, act: Act) -> Program:
            def body(view: OwnView) -> None:
                world.views[me] = view
                act(world, view)

            return body

        programs = {me: program(me, act) for me, act in self.acts.items()}
        self.run = Run(store, programs, decide, world.watch)
        return self.run

    def _look(self) -> None:
        if self.world and self.run:
            steps = "\n".join(self.run.steps)
            self.promises += self.world.promises
            assert not self.world.problems, f"{sorted(self.world.problems)}:\n{steps}"

    def _expired(self, lease: leases.Lease, info: object, now: object) -> bool:
        assert self.world
        me = threading.current_thread().name
        return me not in self.world.planning and self.world.views[me].choose(2) == 1

    def done(self) -> None:
        self._look()
        assert self.promises > 0


@pytest.fixture
def new_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    source = tmp_path / "model.bin"
    source.write_bytes(DATA)

    def make(case: tuple[Start, dict[str, Act]], create_only: bool) -> Scene:
        return Scene(case, source, monkeypatch, create_only)

    return make


@pytest.fixture(params=[True, False], ids=["create-only", "no atomic create"])
def scene(request: pytest.FixtureRequest, new_scene: Any) -> Any:
    return partial(new_scene, create_only=request.param)


def follow(name: str, made: Scene, preemptions: int, seeds: int) -> None:
    found, drawn = explore(made, preemptions), sample(made, range(seeds))
    made.done()
    print(f"{name}: {found.states} states, {found.runs} + {drawn.runs} runs, {made.promises} promises")
    assert found.states > 50


def cases(names: Iterable[str], weak: set[str], left_out: set[str]) -> Any:
    """Each name with a store that creates a key once, and with one that can't; what waits for `make test-all` is marked."""
    return pytest.mark.parametrize(
        ("name", "scene"),
        [
            pytest.param(
                name,
                create_only,
                id=f"{name}-{'create-only' if create_only else 'no atomic create'}",
                marks=[] if name not in left_out and (create_only or name in weak) else pytest.mark.minutes,
            )
            for name in names
            for create_only in (True, False)
        ],
        indirect=["scene"],
    )


@cases(PAIRS, weak={"push over an orphan"}, left_out=set())
def test_two_at_once(name: str, scene: Any) -> None:
    follow(name, scene(PAIRS[name]), preemptions=2, seeds=20)


@cases(GROUPS, weak=set(), left_out=LATER)
def test_more_at_once(name: str, scene: Any) -> None:
    follow(name, scene(GROUPS[name]), preemptions=1, seeds=100)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("name", [*PAIRS, *GROUPS])
def test_longer(name: str, scene: Any) -> None:
    preemptions = 3 if name in PAIRS else 2
    follow(name, scene((PAIRS | GROUPS)[name]), preemptions, seeds=1000)


BROKEN: dict[str, tuple[str, Any, bool]] = {
    "the lists are not read": ("cluster.store.publish.condemned_keys", lambda store: set(), True),
    "the lease is not looked at": ("cluster.store.leases.Held.valid", lambda held: True, False),
    "no fence": ("cluster.store.leases.fence", lambda store, key: True, True),
    "leases of others are not read": ("cluster.store.leases.read_leases", lambda store: iter(()), True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_code_is_found(name: str, new_scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target, broken, create_only = BROKEN[name]
    made = new_scene(PAIRS["push over an orphan"], create_only)
    monkeypatch.setattr(target, broken)
    with pytest.raises(AssertionError, match=r"lacks data|partial"):
        follow(name, made, preemptions=2, seeds=0)


def test_a_version_whose_place_is_fenced_comes_back_under_another_digest() -> None:
    store = MemoryStore()
    for key, data in {**DELETED, PLACE.key: FENCE}.items():
        store.put(key, data)
    back = trash.restore(store, PLACE, threads=1)
    assert back.files == OLD.files
    assert back.created != OLD.created
    assert store.get(Version.of(back).key) == back.to_json()
    assert store.get(PLACE.key) == FENCE
    assert store.get(deleted_key(PLACE.key)) == OLD.to_json()


def test_a_fence_is_no_version_to_remove() -> None:
    store = MemoryStore()
    store.put(PLACE.key, FENCE)
    with pytest.raises(NotFound):
        trash.remove(store, PLACE)
    assert store.get(PLACE.key) == FENCE
    assert list(store.list("deleted/")) == []


def test_a_restored_version_is_no_deleted_one() -> None:
    store = MemoryStore(clock=lambda: NOON)
    for key, data in DELETED.items():
        store.put(key, data)
    assert trash.restore(store, PLACE, threads=1) == OLD
    assert deleted_versions(store) == []
    store.advance(timedelta(days=30))
    collector = Collector(store, KEEPS_DELETED, threads=1)
    assert collector.run(collector.plan(store.now)).versions == [PLACE.ref]
    assert deleted_versions(store) == [PLACE]
    assert trash.restore(store, PLACE, threads=1) == OLD
