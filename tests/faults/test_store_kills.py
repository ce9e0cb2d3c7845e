"""SIGKILL at the store calls of every operation. Here at every fourth; `tests.bench.store_faults` takes each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.breaking import quick_folder
from tests.faults.crashes import Run, children, crash_everywhere
from tests.faults.operations import OPERATIONS, Operation


@pytest.fixture(scope="module")
def killed() -> Iterator[Run]:
    with children() as run:
        yield run


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_nothing_is_lost_and_again_is_enough(operation: Operation, killed: Run) -> None:
    with quick_folder() as folder:
        row = crash_everywhere(operation, "killed", killed, folder, step=4)
    assert row.problems == []
    assert (row.lost, row.partials, row.stuck) == (0, 0, 0)
    assert row.crashes >= 4
