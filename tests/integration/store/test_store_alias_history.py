"""Aliases remember where they were, and go back there one move after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, aliases, trash
from cluster.store.layout import Version, alias_key
from tlgan.errors import BackendError, Conflict, IntegrityError, NotFound
from tlgan.manifest import Manifest

KEY = alias_key("model", "best")


@pytest.fixture
def versions(artifacts: ArtifactStore, make: Callable[..., Path]) -> list[Manifest]:
    return [artifacts.push("model", make(str(n), {"a.txt": b"%d" % n}), kind="files", aliases=()) for n in range(4)]


def move(artifacts: ArtifactStore, *targets: Manifest) -> None:
    for target in targets:
        artifacts.move_alias("model", "best", target.digest)


def undo(artifacts: ArtifactStore) -> str:
    return artifacts.undo_alias("model", "best").digest


def test_undo_goes_back_as_in_an_editor(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    a, b, c, d = versions
    move(artifacts, a, b, c)
    assert undo(artifacts) == b.digest
    assert undo(artifacts) == a.digest
    with pytest.raises(NotFound, match="no move left to undo"):
        undo(artifacts)
    assert artifacts.resolve("model:best").digest == a.digest
    move(artifacts, d, c)
    assert undo(artifacts) == d.digest
    assert undo(artifacts) == a.digest
    record = artifacts.alias("model", "best")
    places = [one.digest for one in (record, *record.before)]
    assert places == [one.digest for one in (a, d, c, d, a, b, c, b, a)]
    assert [one.undo for one in (record, *record.before)] == [True, True, False, False, True, True, False, False, False]
    assert record.prev == record.history[0]


def test_a_move_to_where_it_is_is_no_move(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    a, b, *_ = versions
    move(artifacts, a, b, b, b)
    assert len(artifacts.alias("model", "best").before) == 1
    move(artifacts, a)
    assert [undo(artifacts), undo(artifacts)] == [b.digest, a.digest]


def test_a_removed_alias_is_no_more_and_comes_back(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    a, b, *_ = versions
    move(artifacts, a, b)
    assert artifacts.remove_alias("model", "best").removed
    assert artifacts.aliases("model") == {}
    with pytest.raises(NotFound, match='has no alias "best"'):
        artifacts.resolve("model:best")
    with pytest.raises(NotFound):
        artifacts.remove_alias("model", "best")
    assert undo(artifacts) == b.digest
    artifacts.remove_alias("model", "best")
    move(artifacts, b)
    assert artifacts.resolve("model:best").digest == b.digest
    assert artifacts.undo_alias("model", "best").removed
    assert artifacts.aliases("model") == {}
    assert undo(artifacts) == b.digest
    assert undo(artifacts) == a.digest


def test_expectations_of_a_removed_alias(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    if artifacts.single_writer:
        move(artifacts, *versions)
        with pytest.raises(BackendError, match="can't move an alias with an expectation"):
            artifacts.undo_alias("model", "best", versions[-1].digest)
        return
    a, b, *_ = versions
    move(artifacts, a)
    artifacts.remove_alias("model", "best", expect=a.digest)
    with pytest.raises(Conflict, match="does not exist"):
        artifacts.move_alias("model", "best", b.digest, expect=a.digest)
    artifacts.move_alias("model", "best", b.digest, expect="none")
    with pytest.raises(Conflict, match="expected"):
        artifacts.undo_alias("model", "best", expect=a.digest)
    assert artifacts.resolve("model:best").digest == b.digest


@pytest.mark.parametrize("backend", ["directory"], indirect=True)
def test_the_history_is_bounded(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    for number in range(70):
        move(artifacts, versions[number % 4])
    record = artifacts.alias("model", "best")
    assert [one.digest for one in record.before] == [versions[n % 4].digest for n in range(68, 18, -1)]
    for number in range(68, 43, -1):  # an undo is a move too: half of the list can be undone
        assert undo(artifacts) == versions[number % 4].digest
    with pytest.raises(NotFound, match="no move left to undo"):
        undo(artifacts)
    assert len(artifacts.store.get(KEY)) < aliases.MAX_BYTES / 4


def test_old_records_are_read_and_unknown_fields_kept(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    a, b, c, _ = versions
    old = {
        "name": "model",
        "alias": "best",
        "op": "0",
        "digest": b.digest,
        "version": Version.of(b).id,
        "moved": "2026-01-02T00:00:00.000000Z",
        "prev": {"digest": a.digest, "version": Version.of(a).id, "moved": "2026-01-01T00:00:00.000000Z", "by": "me"},
        "note": "from a newer writer",
    }
    artifacts.store.put(KEY, json.dumps(old).encode())
    move(artifacts, c)
    record = json.loads(artifacts.store.get(KEY))
    assert record["note"] == "from a newer writer"
    assert [one["digest"] for one in record["history"]] == [b.digest, a.digest]
    assert record["history"][1]["by"] == "me"
    assert record["prev"] == record["history"][0]
    assert [undo(artifacts), undo(artifacts)] == [b.digest, a.digest]


def test_undo_does_not_run_over_somebody_else(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    """Even when the other one moved it to the same version again."""
    a, b, c, _ = versions
    move(artifacts, a, b)
    seen = artifacts.alias("model", "best")
    move(artifacts, c, b)
    with pytest.raises(Conflict, match="was moved meanwhile"):
        aliases.undo_alias(artifacts.store, seen)
    assert artifacts.resolve("model:best").digest == b.digest


def test_undo_to_a_version_that_is_gone(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    a, b, *_ = versions
    move(artifacts, a, b)
    trash.remove(artifacts.store, Version.of(a))
    with pytest.raises(NotFound, match="is not in"):
        undo(artifacts)
    trash.restore(artifacts.store, Version.of(a))
    assert undo(artifacts) == a.digest


def test_a_damaged_record_can_not_be_undone(artifacts: ArtifactStore, versions: list[Manifest]) -> None:
    move(artifacts, *versions)
    artifacts.store.put(KEY, b"{")
    for refused in (artifacts.undo_alias, artifacts.remove_alias):
        with pytest.raises(IntegrityError, match="can't be read"):
            refused("model", "best")
    move(artifacts, versions[0])
    assert artifacts.resolve("model:best").digest == versions[0].digest
