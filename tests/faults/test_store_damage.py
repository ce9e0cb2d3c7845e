"""Random damage to what is stored and cached. Here three of each kind; `tests.bench.store_faults` does a thousand and more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cluster.store import ArtifactStore, Version, records
from cluster.store.gc import Collector
from cluster.store.layout import FENCE
from cluster.store.retention import Policy
from tests.faults import damage
from tests.faults.breaking import quick_folder
from tests.faults.memory_store import MemoryStore
from tlgan.errors import IntegrityError


def test_all_damage_is_found_or_healed() -> None:
    with quick_folder() as folder:
        report = damage.run(3, 3 * len(damage.PLACES) * len(damage.KINDS), folder)
    assert report.problems == []
    seen = {(place, kind) for place, kind, _ in report.counts}
    assert seen == {(place, kind) for place in damage.PLACES for kind in damage.KINDS}
    assert {place for place, _, end in report.counts if end == damage.FOUND} == damage.PLACES.keys() - {"cache"}
    assert damage.HEALED in {end for _, _, end in report.counts}


def test_records_without_a_checksum_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_check", lambda fields: "0" * 16)
    with quick_folder() as folder:
        counts = damage.run(3, 6 * len(damage.KINDS), folder, ["lease"]).counts
    assert counts["lease", "bit flip", damage.HARMLESS]


def test_a_manifest_as_long_as_a_fence_is_no_fence(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = MemoryStore()
    (tmp_path / "notes.txt").write_text("text")
    manifest = ArtifactStore(store, tmp_path / "cache").push("model", tmp_path / "notes.txt", kind="files", aliases=())
    key = Version.of(manifest).key
    store.put(key, store.get(key)[: len(FENCE)])
    with pytest.raises(IntegrityError, match="nothing is collected"):
        Collector(store, Policy(grace=timedelta(0))).plan()
