"""What people do with a store, each operation from the same start, and what may be seen when one was cut short."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cluster.store import ArtifactStore, Store, open_store, trash
from cluster.store.catalog import deleted_versions, find_deleted
from cluster.store.condemned import condemned_lists, forget
from cluster.store.gc import Collector
from cluster.store.layout import FENCE, Version, blob_key
from cluster.store.pieces import Rule
from cluster.store.retention import Policy
from tlgan.errors import TlganError
from tlgan.manifest import Manifest
from tlgan.naming import ArtifactRef

NOW = timedelta(0)
SOON = Policy(grace=NOW)
AT_ONCE = Policy(grace=NOW, restorable=NOW)
CONTENTS = {name: {"own.bin": name.encode() * 300, "shared.bin": b"shared" * 100} for name in ("v0", "v1", "v2", "v3")}
NEW = {"own.bin": b"new" * 300, "more.bin": bytes(range(250)) * 8, "shared.bin": b"shared" * 100}


class World:
    """A store below `root`, with files to push. `through` puts something between the operations and the directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = open_store(str(root / "store"))
        self.dest = root / "pulled"

    def artifacts(self, store: Store | None = None, cache: str = "cache") -> ArtifactStore:
        return ArtifactStore(store or self.store, self.root / cache, threads=1)

    def files(self, name: str, content: dict[str, bytes]) -> Path:
        folder = self.root / "files" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in content.items():
            (folder / path).write_bytes(data)
        return folder

    def version(self, content: str) -> Version:
        """The version of the start state, live or deleted, by the name of its content."""
        return Version(**{"name": "model", **dict(zip(("id", "created", "digest"), self._known[content], strict=True))})

    @property
    def _known(self) -> dict[str, list[str]]:
        lines = (self.root / "versions.txt").read_text().splitlines()
        return {line.split()[0]: line.split()[1:] for line in lines}

    def start(self) -> None:
        """Three live versions, two aliases, a deleted version, another artifact with a shared blob, an orphan."""
        artifacts, known = self.artifacts(), {}
        for name, content in CONTENTS.items():
            aliases = {"v1": ["best"], "v3": ["latest"]}.get(name, [])
            manifest = artifacts.push("model", self.files(name, content), kind="files", aliases=aliases)
            known[name] = Version.of(manifest)
        artifacts.push("other", self.files("v1", CONTENTS["v1"]) / "shared.bin", kind="files")
        trash.remove(self.store, known["v0"])
        self.store.put("blobs/ab/" + "ab" * 32, b"left behind")
        self.files("new", NEW)
        text = "\n".join(f"{name} {v.id} {v.created} {v.digest}" for name, v in known.items())
        (self.root / "versions.txt").write_text(text)


@dataclass(frozen=True)
class Operation:
    """`act` does it through a store that may break. `cleaning`: the policy that leaves only what is needed afterwards."""

    name: str
    act: Callable[[World, Any], Any]
    cleaning: Policy = SOON


def _push(world: World, store: Store) -> Manifest:
    artifacts = world.artifacts(store)
    return artifacts.push("model", world.root / "files" / "new", kind="files", aliases=["latest", "new"])


def _push_in_pieces(world: World, store: Store) -> Manifest:
    world.store.pieces = Rule(start=1_000, size=700)  # type: ignore[attr-defined]
    return _push(world, store)


def _push_again(world: World, store: Store) -> Manifest:
    return world.artifacts(store).push("model", world.root / "files" / "v3", kind="files", aliases=["again"])


def _stage_and_commit(world: World, store: Store) -> Manifest:
    artifacts = world.artifacts(store)
    entries = artifacts.stage(world.root / "files" / "new", pin="run-1/3")
    published = artifacts.commit(Manifest.create("model", entries, kind="files"), aliases=["latest"])
    artifacts.unpin("run-1/3")
    return published


def _pull(world: World, store: Store) -> Path:
    return world.artifacts(store, cache="cache-of-pull").pull("model:latest", world.dest)


def _collect(policy: Policy) -> Callable[[World, Any], Any]:
    def act(world: World, store: Store) -> Any:
        collector = Collector(store, policy, threads=1)
        return collector.run(collector.plan(later()))

    return act


def _remove(world: World, store: Store) -> None:
    trash.remove(store, world.version("v2"))


def _restore(world: World, store: Store) -> Manifest:
    ref = ArtifactRef.parse(world.version("v0").ref)
    return trash.restore(store, find_deleted(store, ref), threads=1)


def _move(world: World, store: Store) -> Any:
    expected, target = world.version("v1"), world.version("v2")
    return world.artifacts(store).move_alias("model", "best", target.digest, expect=expected.digest)


LAST = Policy(keep_last=1, grace=NOW)
LAST_AT_ONCE = Policy(keep_last=1, grace=NOW, restorable=NOW)
OPERATIONS = [
    Operation("push", _push),
    Operation("push in pieces", _push_in_pieces),
    Operation("push again", _push_again),
    Operation("stage, commit", _stage_and_commit),
    Operation("pull", _pull),
    Operation("gc", _collect(LAST)),
    Operation("gc at once", _collect(LAST_AT_ONCE), LAST_AT_ONCE),
    Operation("delete", _remove),
    Operation("restore", _restore),
    Operation("alias move", _move),
]


def later() -> datetime:
    """Past the granularity of file times."""
    return datetime.now(UTC) + timedelta(seconds=2)


@dataclass
class Seen:
    """What a store shows: content -> where it stands, alias -> content. A content is (name, file digests)."""

    live: set[Any] = field(default_factory=set)
    deleted: set[Any] = field(default_factory=set)
    aliases: dict[str, Any] = field(default_factory=dict)
    partial: list[str] = field(default_factory=list)
    pulled: bool = False


def look(world: World) -> Seen:
    """Everything, read and verified to the last byte."""
    artifacts, seen = world.artifacts(cache="cache-of-looks"), Seen()
    by_digest: dict[str, Any] = {}
    for name in artifacts.names():
        for version in artifacts.versions(name):
            try:
                manifest = artifacts.resolve(version.ref)
                seen.partial += artifacts.verify(manifest.ref, full=True).problems
                by_digest[manifest.digest] = content(manifest)
            except TlganError as error:
                seen.partial.append(f"{version.ref}: {error.message}")
        for alias, record in artifacts.aliases(name).items():
            seen.aliases[f"{name}:{alias}"] = by_digest.get(record.digest, record.digest)
    seen.live = set(by_digest.values())
    seen.deleted = {version.digest for version in deleted_versions(world.store)}
    seen.pulled = world.dest.exists()
    if seen.pulled and {path.name: path.read_bytes() for path in world.dest.iterdir()} != CONTENTS["v3"]:
        seen.partial.append(f"{world.dest} has other bytes")
    return seen


def content(manifest: Manifest) -> Any:
    return (manifest.name, tuple((entry.path, entry.sha256) for entry in manifest.files))


def clean(world: World, policy: Policy) -> dict[str, int]:
    """A day later, when a person knows that whoever left something is dead: collects twice. What is left, by kind."""
    yesterday = time.time() - 24 * 3600 * 15
    for path in (world.root / "store" / "leases").glob("*.json"):
        os.utime(path, (yesterday, yesterday))
    for left in condemned_lists(world.store):
        forget(world.store, left.id)
    for _ in range(2):
        collector = Collector(world.store, policy, threads=1)
        collector.run(collector.plan(later()))
    keys = list(world.store.list())
    needed = {
        blob_key(entry)
        for prefix in ("versions/", "deleted/")
        for info in world.store.list(prefix)
        if info.size != len(FENCE)
        for entry in Manifest.from_json(world.store.get(info.key)).blobs
    }
    blobs = {info.key for info in keys if info.key.startswith("blobs/")}
    kinds = ("leases/", "gc/")
    left_over = {kind: sum(i.key.startswith(kind) and not i.key.endswith(".broken") for i in keys) for kind in kinds}
    return left_over | {"unneeded blobs": len(blobs - needed)}
