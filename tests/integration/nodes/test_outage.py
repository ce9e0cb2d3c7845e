"""A store that is away for a while, over HTTP: what is kept on disk meanwhile, and that the newest gets there after."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from servers import S3Server
from tiny_gan import recipe

from cluster.checkpoints import Checkpoints
from cluster.patience import patiently
from cluster.store import open_store
from tests.bench.outage import outage
from tlgan import checkpoint
from tlgan.saver import Saver


def test_checkpoints_go_on_while_the_store_answers_503(
    moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.use(monkeypatch)
    bucket, state = moto_server.new_bucket(), {"G": {"w": torch.ones(3)}}
    with outage(moto_server.endpoint) as proxy:
        store = open_store(f"s3://{bucket}/store", endpoint=proxy.endpoint)
        checkpoints = Checkpoints(store, "run-1", keep=2)
        pushed: list[bool] = []
        with Saver(tmp_path, 2, lambda path, nimg: pushed.append(checkpoints.push(path, nimg))) as saver:
            saver.save(1, state, {"recipe": recipe().digest})
            saver.flush()
            proxy.away.set()
            saver.save(2, state, {"recipe": recipe().digest})
            saver.flush()
            assert checkpoint.newest(tmp_path) == tmp_path / "ckpt-000000000002", "on this disk it is"
            assert proxy.refused > 0
            proxy.leave_for(2)
            patiently(lambda: store.put("runs/run-1/draft-1.json", b"{}"), "the result", patience=120)
            saver.save(3, state, {"recipe": recipe().digest})
            saver.flush()
        assert pushed == [True, False, True]
        assert [place.nimg for place in checkpoints.complete()] == [1, 3]
        assert store.get("runs/run-1/draft-1.json") == b"{}"
