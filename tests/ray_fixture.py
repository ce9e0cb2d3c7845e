"""The fixture `shared_ray`: one Ray for all tests of a session; jobs in this process use it because it is initialised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from servers import KEY, SECRET


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from cluster.ray_session import RaySession

    with pytest.MonkeyPatch.context() as patch:  # nodes have the store's keys; its address comes with the task
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        session = RaySession(log_file=tmp_path_factory.mktemp("ray") / "ray.log")
        ray = session.connect()
    try:
        yield ray
    finally:
        session.close()
