"""The collector and the trash: what nothing needs goes, what anything needs stays, whoever sleeps meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.holding import held_by_runs
from cluster.runs import Runs, new_record
from cluster.store import ArtifactStore, leases, trash
from cluster.store.catalog import deleted_versions, find_deleted
from cluster.store.condemned import condemn, condemned_keys, condemned_lists, forget
from cluster.store.gc import Collector
from cluster.store.layout import FENCE, Version, blob_key
from cluster.store.retention import Best, Policy
from tlgan.errors import Conflict, IntegrityError, NotFound
from tlgan.manifest import Manifest, Parent, now_utc
from tlgan.naming import ArtifactRef

Make = Callable[..., Path]
NOW = Policy(grace=timedelta(0))
AT_ONCE = Policy(grace=timedelta(0), restorable=timedelta(0))


def collect(artifacts: ArtifactStore, policy: Policy = NOW):  # type: ignore[no-untyped-def]
    collector = Collector(artifacts.store, policy)
    return collector.run(collector.plan(later()))


def later() -> datetime:
    """Past the whole seconds in which some servers tell times."""
    return datetime.now(UTC) + timedelta(seconds=2)


def blobs(artifacts: ArtifactStore) -> set[str]:
    return {info.key for info in artifacts.store.list("blobs/")}


def publish(artifacts: ArtifactStore, make: Make, name: str, content: str, **about: object) -> Manifest:
    folder = make(f"{name}-{content}", {"own.bin": content.encode(), "shared.bin": b"shared"})
    return artifacts.push(name, folder, kind="files", **about)  # type: ignore[arg-type]


def test_only_what_nothing_names_goes(artifacts: ArtifactStore, make: Make) -> None:
    kept = publish(artifacts, make, "model", "1")
    artifacts.store.put("blobs/ab/" + "ab" * 32, b"left by a killed push")
    done = collect(artifacts)
    assert done.blobs == ["blobs/ab/" + "ab" * 32]
    assert blobs(artifacts) == {blob_key(entry) for entry in kept.files}
    assert artifacts.verify("model:latest", full=True).ok
    assert condemned_lists(artifacts.store) == []


def test_versions_go_by_rule_and_can_be_restored(artifacts: ArtifactStore, make: Make) -> None:
    first, second, third = (publish(artifacts, make, "model", str(n)) for n in range(3))
    artifacts.move_alias("model", "best", first.digest)
    policy = Policy(keep_last=1, grace=timedelta(0))
    plan = Collector(artifacts.store, policy).plan(later())
    assert [version.ref for version in plan.versions] == [second.ref]
    assert plan.kept[Version.of(first).key] == "alias best"
    done = collect(artifacts, policy)
    assert done.versions == [second.ref]
    assert done.blobs == []
    assert [version.ref for version in artifacts.versions("model")] == [first.ref, third.ref]
    with pytest.raises(NotFound, match="it was deleted"):
        artifacts.resolve(second.ref)
    back = trash.restore(artifacts.store, find_deleted(artifacts.store, ArtifactRef.parse(second.ref)))
    assert back == second
    assert artifacts.verify(second.ref, full=True).ok
    assert deleted_versions(artifacts.store) == []


def test_what_can_not_be_restored_any_more_goes(artifacts: ArtifactStore, make: Make) -> None:
    old = publish(artifacts, make, "model", "old")
    new = publish(artifacts, make, "model", "new")
    done = collect(artifacts, Policy(keep_last=1, grace=timedelta(0), restorable=timedelta(0)))
    gone = {blob_key(entry) for entry in old.files} - {blob_key(entry) for entry in new.files}
    assert set(done.blobs) == gone
    with pytest.raises(NotFound, match="were collected"):
        trash.restore(artifacts.store, deleted_versions(artifacts.store)[0])
    assert len(collect(artifacts, AT_ONCE).tombstones) == 1
    assert artifacts.verify("model:latest", full=True).ok


def test_best_and_age(artifacts: ArtifactStore, make: Make) -> None:
    worse = publish(artifacts, make, "model", "1", metrics=[{"name": "kid", "value": 0.2}])
    good = publish(artifacts, make, "model", "2", metrics=[{"name": "kid", "value": 0.1}])
    publish(artifacts, make, "model", "3", metrics=[{"name": "kid", "value": 0.3}])
    plan = Collector(artifacts.store, Policy(keep_last=1, best=Best("kid"))).plan(later())
    assert [version.ref for version in plan.versions] == [worse.ref]
    assert plan.kept[Version.of(good).key] == "best by kid"
    assert Collector(artifacts.store, Policy(older_than=timedelta(days=1))).plan().versions == []
    in_a_week = later() + timedelta(days=7)
    aged = Collector(artifacts.store, Policy(older_than=timedelta(days=1), names=("mod*",))).plan(in_a_week)
    assert [version.ref for version in aged.versions] == [worse.ref, good.ref]
    assert Collector(artifacts.store, Policy(keep_last=1, names=("other",))).plan(in_a_week).versions == []


def test_what_a_run_may_go_on_from_stays(artifacts: ArtifactStore, make: Make) -> None:
    start, code, failed, done, newest = (publish(artifacts, make, "model", str(n)) for n in range(5))
    runs = Runs(artifacts.store)
    inputs = {"init_from": {"ref": start.ref, "digest": start.digest}}
    runs.create(new_record("going-1", "going", "finetune", inputs=inputs, submission={"code": {"digest": code.digest}}))
    ends = {"succeeded": done, "failed": failed}
    for state, needed in ends.items():
        record = new_record(f"{state}-1", state, "finetune", inputs={"data": {"digest": needed.digest}})
        runs.create(record.model_copy(update={"state": state, "finished": now_utc()}))

    def versions_left(now: datetime) -> list[str]:
        policy = Policy(keep_last=1, grace=timedelta(0), restorable=timedelta(0))
        collector = Collector(artifacts.store, policy, needed=lambda: held_by_runs(artifacts.store, now))
        plan = collector.plan(later())
        assert plan.kept[Version.of(start).key] == "needed by run going-1, which is pending"
        collector.run(plan)
        return [version.ref for version in artifacts.versions("model")]

    assert versions_left(datetime.now(UTC)) == [start.ref, code.ref, failed.ref, newest.ref]
    assert versions_left(datetime.now(UTC) + timedelta(days=31)) == [start.ref, code.ref, newest.ref]
    assert artifacts.verify(code.ref, full=True).ok


def test_manifests_of_ancestors_stay(artifacts: ArtifactStore, make: Make) -> None:
    parent = publish(artifacts, make, "base", "1")
    publish(artifacts, make, "base", "2")
    publish(artifacts, make, "tuned", "1", parents=[Parent(ref=parent.ref, digest=parent.digest)])
    everything = Policy(keep_last=1, names=("base",), grace=timedelta(0), restorable=timedelta(0))
    collect(artifacts, everything)
    assert collect(artifacts, everything).tombstones == []
    node = artifacts.lineage("tuned:latest")["parents"][0]
    assert node["digest"] == parent.digest
    assert node["deleted"]


def test_a_lease_and_a_pin_protect(artifacts: ArtifactStore, make: Make) -> None:
    entries = artifacts.stage(make("draft", {"draft.bin": b"draft"}), pin="run-1/trials/0")
    with leases.hold(artifacts.store, ["blobs/ab/" + "ab" * 32]):
        artifacts.store.put("blobs/ab/" + "ab" * 32, b"being pushed")
        assert collect(artifacts).blobs == []
    assert collect(artifacts).blobs == ["blobs/ab/" + "ab" * 32]
    artifacts.commit(Manifest.create("model", entries, kind="files"))
    artifacts.unpin("run-1/trials/0")
    assert collect(artifacts).blobs == []
    assert artifacts.verify("model:latest", full=True).ok


def test_a_push_that_slept_too_long_can_not_commit(artifacts: ArtifactStore, make: Make, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Its lease runs out after the blobs are up; a collection takes them; the push wakes up."""
    slept = []
    fenced = artifacts.store.capabilities.create_only

    def guard() -> None:
        if slept:
            return
        slept.append(1)
        (lease, _info), *_ = [pair for pair in leases.read_leases(artifacts.store) if pair[0].version]
        artifacts.unpin("draft")
        monkeypatch.setattr(leases, "expired", lambda found, info, now: found.id == lease.id)
        done = collect(artifacts)
        assert done.broken == [lease.id]
        assert len(done.blobs) == 1
        monkeypatch.undo()
        assert lease.version
        if fenced:
            assert artifacts.store.get(lease.version) == FENCE
        else:
            assert artifacts.store.head(lease.version) is None
        artifacts.stage(folder, pin="draft")

    folder = make("model", {"weights.bin": b"weights"})
    entries = artifacts.stage(folder, pin="draft")
    manifest = Manifest.create("model", entries, kind="files")
    published = artifacts.commit(manifest, guard=guard)
    assert (published.created != manifest.created) == fenced
    assert artifacts.verify("model:latest", full=True).ok
    assert [version.ref for version in artifacts.versions("model")] == [published.ref]


def test_a_condemned_key_is_not_used_again(artifacts: ArtifactStore, make: Make) -> None:
    """A collector stopped between its list and its deletes; when it goes on it takes nothing that was pushed since."""
    folder = make("model", {"weights.bin": b"weights"})
    (entry,) = artifacts.stage(folder, pin="gone")
    artifacts.unpin("gone")
    sleeping = condemn(artifacts.store, [blob_key(entry)])
    manifest = artifacts.push("model", folder, kind="files")
    again = artifacts.push("twin", folder, kind="files")
    assert manifest.files[0].nonce
    assert manifest.files == again.files
    artifacts.store.delete(blob_key(entry))
    assert artifacts.verify("model:latest", full=True).ok
    assert condemned_keys(artifacts.store) == {blob_key(entry)}
    with pytest.raises(NotFound, match="no unfinished collection") as refused:
        forget(artifacts.store, "20200101-1")
    assert sleeping.id in str(refused.value.hint)
    forget(artifacts.store, sleeping.id)
    third = artifacts.push("third", make("other", {"weights.bin": b"weights"}), kind="files")
    assert third.files[0].nonce is None


def test_nothing_is_collected_while_a_manifest_is_damaged(artifacts: ArtifactStore, make: Make) -> None:
    manifest = publish(artifacts, make, "model", "1")
    artifacts.store.put(Version.of(manifest).key, b"{" + b" " * 200)
    artifacts.store.put("blobs/ab/" + "ab" * 32, b"orphan")
    with pytest.raises(IntegrityError, match="nothing is collected"):
        collect(artifacts)
    assert len(blobs(artifacts)) == 3


def test_an_alias_can_not_move_to_what_is_being_collected(artifacts: ArtifactStore, make: Make) -> None:
    first = publish(artifacts, make, "model", "1")
    second = publish(artifacts, make, "model", "2")
    condemned = condemn(artifacts.store, [Version.of(first).key])
    with pytest.raises(Conflict, match="being collected"):
        artifacts.move_alias("model", "best", first.digest)
    artifacts.store.delete(condemned.key)
    with pytest.raises(Conflict, match="has the alias latest"):
        trash.remove(artifacts.store, Version.of(second))
    trash.remove(artifacts.store, Version.of(first))
    with pytest.raises(NotFound, match="it was deleted") as gone:
        artifacts.resolve(first.ref)
    assert "artifact restore" in str(gone.value.hint)
