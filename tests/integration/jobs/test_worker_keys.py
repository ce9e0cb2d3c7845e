"""Whole runs with the key of a worker, as `infra/s3/policy-worker.json` has it: it may not delete anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dialects import Proxy
from roles import Enforces
from servers import S3Server, moto_server, policy_of  # noqa: F401

from cluster.checkpoints import old_checkpoints
from cluster.control import stop_run
from cluster.specfile import parse_job
from cluster.store import ArtifactStore
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import RunStopped

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def session(
    moto_server: S3Server,  # noqa: F811
    events: Events,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Session]:
    moto_server.use(monkeypatch)
    bucket, dialect = moto_server.new_bucket(), Enforces()
    dialect.statements = policy_of("worker", bucket, "models")
    proxy = Proxy(moto_server, dialect)
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", proxy.endpoint)
    store = ArtifactStore(f"s3://{bucket}/models", tmp_path / "cache")
    try:
        with Session(store, lambda run, event: events.append((run, event))) as one:
            yield one
    finally:
        proxy.http.shutdown()
        proxy.http.server_close()


def test_a_run_is_stopped_and_taken_up_again(
    session: Session,
    pretrain: Callable[..., Any],
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tlgan")
    job = pretrain(train__kimg=6, checkpoint__every_kimg=1, metrics="[]")

    def stop_once(run: str, event: dict[str, Any]) -> None:
        events.append((run, event))
        if event["type"] == "stored" and not session.artifacts.store.head(f"runs/{run}/stop-1.json"):
            stop_run(session.runs, session.runs.get(run))

    session.listener = stop_once
    with pytest.raises(RunStopped):
        execute(job, session)
    session.listener = lambda run, event: events.append((run, event))
    record = execute(job, session)
    assert (record.state, record.attempt) == ("succeeded", 2)
    assert [event["nimg"] > 0 for _, event in events if event["type"] == "resumed"] == [True]
    assert session.artifacts.verify("tiny-gan:latest", full=True).ok
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    left = [info.key for info in session.artifacts.store.list(f"runs/{record.id}/checkpoints/")]
    assert left, "for a collector"
    session.fresh = True
    assert execute(job, session).attempt == 3
    assert "goes on from its old checkpoints" in caplog.text


@pytest.mark.minutes
def test_a_search_needs_no_right_to_delete(
    shared_ray: Any, session: Session, pretrain: Callable[..., Any], sweep: dict[str, Any], features: None
) -> None:
    execute(pretrain(), session)
    sweep["space"] = {"transfer.freeze_d": {"choice": [0, 2]}}
    sweep["search"]["trials"] = 2
    sweep["early_stop"] = {"scheduler": "hyperband", "grace_kimg": 1, "eta": 2}
    record = execute(parse_job(sweep), session)
    assert record.state == "succeeded"
    assert session.artifacts.resolve("found:best").facts["params"]["transfer.freeze_d"] in (0, 2)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    found = old_checkpoints(session.artifacts.store, timedelta(hours=1), tomorrow)
    keys = next(one.keys for one in found if one.run == record.id)
    assert {key.split("/")[4].split("-")[0] for key in keys} == {"checkpoints", "draft"}, "for a collector"
