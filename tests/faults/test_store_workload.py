"""A random workload on a store that goes wrong, by seed. Here some hundred faults; `tests.bench.store_faults` has ten
thousand, and replays one: `python -m tests.bench.store_faults --seed N`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.store import gc
from tests.faults import workload
from tests.faults.faulty import KINDS

SEEDS = range(6)
STEPS = 150


def test_nothing_is_lost(tmp_path: Path) -> None:
    reports = [workload.run(seed, STEPS, tmp_path / str(seed)) for seed in SEEDS]
    assert [(report.seed, report.problems) for report in reports if report.problems] == []
    faults = sum((report.faults for report in reports), workload.Counter())
    assert faults.keys() == set(KINDS)
    assert sum(faults.values()) > 400
    assert len(sum((report.steps for report in reports), workload.Counter())) == 9


def test_a_seed_is_the_same_again(tmp_path: Path) -> None:
    first, second = (workload.run(5, 60, tmp_path / str(n)) for n in range(2))
    assert (first.steps, first.faults) == (second.steps, second.faults)


def found(tmp_path: Path) -> str:
    """The first problem of some seeds."""
    for seed in range(30):
        if problems := workload.run(seed, STEPS, tmp_path / str(seed)).problems:
            return problems[0]
    return ""


def test_a_deletion_that_does_not_look_at_the_bytes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(store, version):  # type: ignore[no-untyped-def]
        store.put(gc.deleted_key(version.key), store.get(version.key))
        store.delete(version.key)
        return True

    monkeypatch.setattr(gc, "delete_version", careless)
    monkeypatch.setattr("cluster.store.trash.delete_version", careless)
    assert "can't be read" in found(tmp_path) or "lost" in found(tmp_path)
