"""What the tests of jobs share: a session over an empty store, a tiny pretraining, one Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.session import Session


@pytest.fixture
def events() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def session(tmp_path: Path, events: list[tuple[str, dict[str, Any]]]) -> Iterator[Session]:
    """A session over an empty directory store; what it tells is collected in `events`."""
    store = ArtifactStore(open_store(str(tmp_path / "store")))
    with Session(store, lambda run, event: events.append((run, event))) as one:
        yield one


@pytest.fixture
def pretrain() -> Callable[..., Any]:
    """A tiny pretraining of digits, in this process; keyword arguments are dotted paths with __ for the dots."""

    def make(**changes: Any) -> Any:
        spec = {
            "kind": "pretrain",
            "name": "tiny",
            "data": {"source": "digits"},
            "model": {"width": 8, "latent_dim": 16},
            "train": {"kimg": 1, "batch_size": 32},
            "output": {"artifact": "tiny-gan"},
        }
        overrides = [f"{path.replace('__', '.')}={value}" for path, value in changes.items()]
        return parse_job(spec, overrides)

    return make
