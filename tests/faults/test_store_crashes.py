"""A crash at every store call of push, pull, gc, delete, restore and alias move; then the same thing is done again."""

from __future__ import annotations

import pytest

from cluster.store import ArtifactStore, gc, publish
from cluster.store.transfer import Placer
from tests.faults.breaking import quick_folder
from tests.faults.crashes import Row, crash_everywhere, in_process
from tests.faults.operations import OPERATIONS, Operation

NAMED = {operation.name: operation for operation in OPERATIONS}


def crash(operation: Operation, how: str) -> Row:
    with quick_folder() as folder:
        return crash_everywhere(operation, how, in_process(how), folder)


FAILS = {"push", "alias move"}  # by an error, too, which cleans up after itself; the rest is for `make test-all`
DIES = {o.name for o in OPERATIONS} - {"gc"}  # "gc at once" takes the same steps, and more


@pytest.mark.parametrize(
    ("operation", "how"),
    [
        pytest.param(
            o,
            how,
            id=f"{o.name}-{how}",
            marks=[] if o.name in (FAILS if how == "fails" else DIES) else pytest.mark.minutes,
        )
        for o in OPERATIONS
        for how in ("fails", "dies")
    ],
)
def test_nothing_is_lost_and_again_is_enough(operation: Operation, how: str) -> None:
    row = crash(operation, how)
    assert row.problems == []
    assert (row.lost, row.partials, row.stuck) == (0, 0, 0)
    assert row.crashes == 2 * row.calls >= 10


def test_a_manifest_before_its_blobs_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the crashes can find what they look for: here in a push of the wrong order."""
    right = publish.commit

    def wrong(store, version, manifest):  # type: ignore[no-untyped-def]
        done = right(store, version, manifest)
        late.place(manifest.files)
        return done

    class Lazy(Placer):
        def place(self, entries):  # type: ignore[no-untyped-def]
            pass

    def later(self: ArtifactStore) -> Placer:
        nonlocal late
        late, lazy = (kind(self.store, self.stats, self.threads) for kind in (Placer, Lazy))
        late.sources = lazy.sources
        return lazy

    late: Placer
    monkeypatch.setattr(publish, "commit", wrong)
    monkeypatch.setattr(ArtifactStore, "_placer", later)
    assert crash(NAMED["push"], "dies").partials > 0


def test_a_deletion_before_its_copy_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(store, version):  # type: ignore[no-untyped-def]
        data = store.get(version.key)
        store.delete(version.key)
        store.put(gc.deleted_key(version.key), data)
        return True

    monkeypatch.setattr(gc, "delete_version", wrong)
    assert crash(NAMED["gc"], "dies").stuck > 0
