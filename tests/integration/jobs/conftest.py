"""What the tests of jobs share: a session over an empty store, a tiny pretraining, one Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.execute import execute
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


@pytest.fixture
def sweep() -> dict[str, Any]:
    return {
        "kind": "sweep",
        "name": "search",
        "base": {
            "kind": "finetune",
            "name": "child",
            "init_from": {"artifact": "tiny-gan:latest"},
            "data": {"source": "digits", "split": "train", "limit": 100},
            "train": {"kimg": 4, "batch_size": 32},
            "transfer": {"method": "freeze"},
            "evaluation": {"samples": 64, "data": {"source": "digits", "split": "test"}},
        },
        "space": {
            "transfer.freeze_d": {"choice": [0, 2]},
            "train.lr_d": {"choice": [2.0e-4, 1.0e30]},
        },
        "search": {"algo": "grid", "trials": 4, "parallel": 2},
        "early_stop": {"scheduler": "asha", "grace_kimg": 1, "eta": 2},
        "objective": {"metric": "kid", "mode": "min"},
        "output": {"artifact": "found", "aliases": ["best"]},
    }


@pytest.fixture
def features(session: Session) -> None:
    """A small stand-in for the embedded extractor: the same kind of artifact, trained for seconds."""
    spec = {"kind": "classifier", "name": "glyph-features", "data": {"source": "digits"}, "model": {"width": 8}}
    execute(parse_job({**spec, "train": {"kimg": 2, "batch_size": 64}}), session)
