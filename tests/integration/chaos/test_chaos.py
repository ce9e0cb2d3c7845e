"""`tlgan chaos` as a person runs it, short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main

pytestmark = pytest.mark.timeout(500)
SPEC = """\
kind: pretrain
name: tiny
data: {source: digits}
model: {width: 8, latent_dim: 16}
train: {kimg: 8, batch_size: 32}
checkpoint: {every_kimg: 1}
output: {artifact: tiny-gan}
"""


def test_a_driver_killed_and_doubled_makes_the_same_weights(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workdir / "tiny.yaml").write_text(SPEC)
    code = main(["chaos", "tiny.yaml", "--store", "store", "--kill", "driver,twin", "--kills", "2", "--json"])
    answer = capsys.readouterr()
    assert code == 0, answer.err
    found = json.loads(answer.out)
    assert found["same"]
    assert sorted(blow["kind"] for blow in found["blows"]) == ["driver", "twin"]
    assert found["drivers"] == 2
    assert [one["artifact"] for one in found["artifacts"]] == ["tiny-gan"]
    assert not (workdir / "store").exists(), "it works on copies"


@pytest.mark.minutes
def test_worker_node_and_driver_of_a_run_on_a_cluster(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workdir / "tiny.yaml").write_text(SPEC)
    more = ["-s", "resources.workers=2", "-s", "train.kimg=64", "-s", "checkpoint.every_kimg=2"]
    code = main(["chaos", "tiny.yaml", "--store", "store", "--json", *more])
    answer = capsys.readouterr()
    assert code == 0, answer.err
    assert sorted(blow["kind"] for blow in json.loads(answer.out)["blows"]) == ["driver", "node", "worker"]
