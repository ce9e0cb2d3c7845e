"""What trackers are told: real files of real packages, read back by their own readers. Nothing logs in anywhere."""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.sinks import About, open_sinks
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import SpecError

SPEC = {
    "kind": "pretrain",
    "name": "tiny",
    "data": {"source": "digits"},
    "model": {"width": 8, "latent_dim": 16},
    "train": {"kimg": 1, "batch_size": 32},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "started", "nimg": 0},
    {"type": "progress", "nimg": 512, "img_per_s": 100.0, "stats": {"loss_g": 1.5, "loss_d": 0.5}},
    {"type": "progress", "nimg": 1024, "img_per_s": 120.0, "stats": {"loss_g": 1.25, "loss_d": 0.75}},
    {"type": "metric", "nimg": 1024, "name": "kid", "value": 0.125},
]


@pytest.fixture
def about(tmp_path: Path) -> About:
    recipe = {"train": {"lr_g": 2e-4, "seed": 0}, "transfer": None}
    return About("tiny-1", "tiny", "pretrain", recipe, tmp_path / "sinks", open_store(str(tmp_path / "store")))


def tell(name: str, about: About, events: list[dict[str, Any]] = EVENTS) -> None:
    fan = open_sinks([name], about)
    assert name in fan.sinks
    for event in events:
        fan(event)
    assert name in fan.sinks, "it took all of them"
    fan.close()


def test_tensorboard_has_the_scalars_and_the_grids_of_a_run(workdir: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    with Session(ArtifactStore(f"file://{workdir}/store")) as session:
        record = execute(parse_job({**SPEC, "sinks": ["tensorboard"]}), session)
        rows = [event for event in session.runs.events(record.id) if event["type"] == "progress"]
        grids = list(session.runs.grids(record.id))
    (file,) = (workdir / ".tlgan" / "sinks" / "tensorboard" / record.id).iterdir()
    values = [(event.step, value) for event in _records(file, Event, masked_crc32c) for value in event.summary.value]
    told = {(step, value.tag): value.simple_value for step, value in values if value.HasField("simple_value")}
    for row in rows:
        for name, number in row["stats"].items():
            assert told[row["nimg"], f"train/{name}"] == pytest.approx(number)
    assert [step for step, value in values if value.HasField("image")] == grids


def _records(file: Path, kind: Any, crc: Any) -> list[Any]:
    """The records of a file in TensorFlow's format: length, its sum, data, their sum."""
    data, found, at = file.read_bytes(), [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        body = data[at + 12 : at + 12 + length]
        assert int.from_bytes(data[at + 12 + length : at + 16 + length], "little") == crc(body)
        found.append(kind.FromString(body))
        at += 16 + length
    return found


def test_mlflow_has_metrics_and_parameters(about: About, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow-skinny is not installed")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    tell("mlflow", about, [*EVENTS, {"type": "run", "state": "failed"}])
    client = tracking.MlflowClient(tracking_uri=(about.folder / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("tlgan").experiment_id])
    assert run.info.run_name == "tiny-1"
    assert run.info.status == "FAILED"
    assert run.data.params == {"train.lr_g": "0.0002", "train.seed": "0"}
    assert run.data.metrics["metric/kid"] == 0.125
    steps = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss_g")]
    assert steps == [(512, 1.5), (1024, 1.25)]


def test_wandb_writes_offline(about: About, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tell("wandb", about)
    wandb.teardown()  # as at the end of the process: its service writes the file
    (folder,) = (about.folder / "wandb" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    assert b"train/loss_g" in file.read_bytes()


class Sick:
    def __init__(self, about: About) -> None:
        self.heard = 0

    def __call__(self, event: dict[str, Any]) -> None:
        raise RuntimeError("out of quota")

    def close(self) -> None: ...


def test_a_sink_that_fails_is_dropped_and_the_run_goes_on(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cluster.sinks.tensorboard.TensorBoard", Sick)
    with Session(ArtifactStore(f"file://{workdir}/store")) as session, caplog.at_level(logging.WARNING):
        record = execute(parse_job({**SPEC, "sinks": ["tensorboard"]}), session)
    assert record.state == "succeeded"
    assert caplog.text.count("sink tensorboard is left out from now on: RuntimeError: out of quota") == 1


def test_an_unknown_sink_is_a_mistake_in_the_spec() -> None:
    with pytest.raises(SpecError, match="sinks"):
        parse_job({**SPEC, "sinks": ["tensorbord"]})


@pytest.mark.ray
def test_prometheus_finds_our_metrics_at_rays_port(shared_ray: Any, about: About) -> None:
    about = replace(about, run="scraped-1")  # others have used this Ray before
    fan = open_sinks([], about)
    for event in [*EVENTS, {"type": "stored", "nimg": 1024, "seconds": 0.5}, {"type": "lost", "cause": "crash"}]:
        fan(event)
    wanted = {
        "ray_tlgan_images{": 1024.0,
        'stat="loss_g"': 1.25,
        'metric="kid"': 0.125,
        "ray_tlgan_store_seconds{": 0.5,
        'cause="crash"': 1.0,
    }
    port = shared_ray.nodes()[0]["MetricsExportPort"]
    host = shared_ray.nodes()[0]["NodeManagerAddress"]
    found = _scrape(f"http://{host}:{port}/metrics", 'run="scraped-1"', list(wanted))
    for what, value in wanted.items():
        (line,) = {x for x in found if what in x}
        assert float(line.rpartition(" ")[2]) == value, json.dumps(found)


def _scrape(url: str, about: str, wanted: list[str], seconds: float = 90) -> list[str]:
    """Lines with `about` in them, as soon as each of `wanted` is in one."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while True:
        with opener.open(url, timeout=30) as answer:
            lines = [line for line in answer.read().decode().splitlines() if "tlgan" in line and about in line]
        if all(any(what in line for line in lines) for what in wanted) or time.monotonic() > end:
            return lines
        time.sleep(1)
