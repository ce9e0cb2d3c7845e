"""One Ray for all tests of a session; jobs in this process use it because it is initialised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, SECRET

from cluster.ray_session import RaySession
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.session import Session


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # a cluster's nodes have the store's keys; its address comes with the task
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        session = RaySession(log_file=tmp_path_factory.mktemp("ray") / "ray.log")
        ray = session.connect()
    try:
        yield ray
    finally:
        session.close()


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
