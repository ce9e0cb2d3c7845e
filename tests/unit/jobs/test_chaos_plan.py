"""What `tlgan chaos` plans, refuses and compares, without anything being killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.chaos.blows import KINDS, draw
from jobs.chaos.comparing import compare
from jobs.chaos.experiment import bring, check_kinds, references, workers_of
from jobs.chaos.watching import Progress
from jobs.cli import main
from tlgan.errors import SpecError

PRETRAIN: dict[str, Any] = {"kind": "pretrain", "name": "x", "data": {"source": "digits"}, "train": {"kimg": 1}}
FINETUNE: dict[str, Any] = {
    "kind": "finetune",
    "name": "child",
    "init_from": {"artifact": "parent:latest"},
    "data": {"artifact": "images@0123456789abcdef"},
    "train": {"kimg": 1},
    "evaluation": {"extractor": "classifier:features:best"},
    "output": {"artifact": "made"},
}


def test_blows_are_a_function_of_the_seed() -> None:
    kinds = list(KINDS)
    assert draw(kinds, 7, seed=3) == draw(kinds, 7, seed=3)
    assert draw(kinds, 7, seed=3) != draw(kinds, 7, seed=4)
    blows = draw(kinds, 10, seed=0)
    assert {blow.kind for blow in blows} == set(kinds), "each at least once"
    assert sorted(blow.at for blow in blows) == [blow.at for blow in blows]
    assert all(0.1 <= blow.at <= 0.9 for blow in blows)


def test_what_can_not_be_hit_is_refused() -> None:
    assert check_kinds([], 0) == ["driver"]
    assert check_kinds([], 2) == ["worker", "node", "driver"]
    assert check_kinds(["worker", "twin"], 0) == ["worker", "twin"]
    with pytest.raises(SpecError, match="--kill node: the job trains in its driver's process"):
        check_kinds(["driver", "node"], 0)


def test_workers_of_every_kind_that_trains() -> None:
    two = {**PRETRAIN, "resources": {"workers": 2, "cpus_per_worker": 3}}
    sweep = {
        "kind": "sweep",
        "name": "s",
        "base": FINETUNE,
        "space": {"train.lr_g": {"choice": [1e-4, 2e-4]}},
        "search": {"parallel": 4},
    }
    assert [workers_of(parse_job(spec)) for spec in (PRETRAIN, two, sweep)] == [0, 6, 4]
    pipeline = {"kind": "pipeline", "name": "p", "stages": {"a": {"run": PRETRAIN}, "b": {"run": two}}}
    assert workers_of(parse_job(pipeline)) == 6
    with pytest.raises(SpecError, match="trains nothing"):
        workers_of(parse_job({"kind": "generate", "name": "g", "target": {"artifact": "x:latest"}}))


def test_everything_that_a_spec_names_is_brought(tmp_path: Path) -> None:
    assert set(references(FINETUNE)) == {"parent:latest", "images@0123456789abcdef", "features:best"}
    source, target = (ArtifactStore(f"file://{tmp_path}/{name}") for name in ("source", "target"))
    (tmp_path / "a").write_bytes(b"abc")
    source.push("parent", tmp_path / "a", kind="gan", aliases={"latest": None})
    job = parse_job({**FINETUNE, "data": {"source": "digits"}, "evaluation": {}})
    assert bring(job, source, target) == {"parent"}
    assert target.resolve("parent:latest").digest == source.resolve("parent:latest").digest


def test_results_that_differ_are_told_with_how_far(tmp_path: Path) -> None:
    stores = [ArtifactStore(f"file://{tmp_path}/{name}", cache_dir=tmp_path / "cache") for name in "ab"]
    for number, store in enumerate(stores):
        folder = tmp_path / f"files-{number}"
        folder.mkdir()
        save_file({"w": np.array([1.0, 2.0 + 0.25 * number], dtype="f4")}, folder / "w.safetensors")
        (folder / "same").write_bytes(b"x")
        store.push("made", folder, kind="gan", aliases={"latest": None})
    (verdict,) = compare(*stores, ["made"])
    assert not verdict.same
    assert verdict.unlike == ["w.safetensors differs by up to 0.25"]
    assert compare(stores[0], stores[0], ["made"])[0].same


def test_progress_counts_each_image_once_and_knows_who_trains(tmp_path: Path) -> None:
    from cluster.events import EventWriter

    store = open_store(str(tmp_path))
    runs = {name: EventWriter(store, name) for name in ("a-1", "s-2/trials/000")}
    progress = Progress(store)
    assert progress.look() == 0
    runs["a-1"]({"type": "started", "nimg": 0, "pid": 11, "pids": [11, 12]})
    for nimg in (100, 200, 100, 200, 300):
        runs["a-1"]({"type": "progress", "nimg": nimg})
    runs["s-2/trials/000"]({"type": "started", "nimg": 0, "pid": 21})
    runs["s-2/trials/000"]({"type": "progress", "nimg": 50})
    for writer in runs.values():
        writer.flush()
    assert progress.look() == 350
    assert progress.pids == [11, 12, 21]
    runs["a-1"]({"type": "trained", "nimg": 300})
    for writer in runs.values():
        writer.close()
    progress.look()
    assert progress.pids == [21]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kill", "drivr"], "unknown kind 'drivr'"),
        (["--kill", "head"], "it has no head"),
        (["--keep", "."], "--keep ."),
    ],
)
def test_bad_input_is_told_before_anything_starts(
    arguments: list[str], said: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "x.yaml").write_text("kind: pretrain\nname: x\ndata: {source: digits}\ntrain: {kimg: 1}\n")
    assert main(["chaos", "x.yaml", "--store", "store", *arguments]) == 2
    assert said in capsys.readouterr().err
