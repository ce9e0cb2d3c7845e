"""Searches on a real Ray: a killed driver, state exchanged between trials, trials of several workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.search.ledger import Ledger, decisions
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, open_store
from jobs.cli import main
from jobs.execute import execute
from jobs.session import Session

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def search() -> Callable[..., dict[str, Any]]:
    """A search of tiny pretrainings; `space` replaces the learning rates."""

    def make(search: dict[str, Any], early: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        return {
            "kind": "sweep",
            "name": "search",
            "base": {
                "kind": "pretrain",
                "name": "base",
                "data": {"source": "digits"},
                "model": {"width": 4, "latent_dim": 8},
                "train": {"kimg": 0.8, "batch_size": 16},
                "grid": {"every_kimg": 100, "rows": 2, "cols": 2},
                "evaluation": {"samples": 32},
            },
            "space": {"train.lr_g": {"log_uniform": [1e-4, 3e-3]}},
            "search": {"parallel": 2, **search},
            "early_stop": early or {"scheduler": "none"},
            "output": {"artifact": "found"},
            **changes,
        }

    return make


def entries_of(session: Session, run: str = "search") -> list[dict[str, Any]]:
    return list(Ledger(session.artifacts.store, session.runs.get(run).id))


def test_a_sweep_whose_driver_was_killed_decides_as_one_that_ran_through(
    shared_ray: Any, session: Session, search: Callable[..., dict[str, Any]], features: None, tmp_path: Path
) -> None:
    """Hyperband, so that trials wait in the store and go on from their checkpoints."""
    spec = search({"trials": 4, "seed": 3}, {"scheduler": "hyperband", "grace_kimg": 0.2, "eta": 2})
    execute(parse_job(spec), session)
    wanted = decisions(entries_of(session))
    assert {e["type"] for e in wanted} >= {"suggested", "promoted", "stopped", "ended"}

    with Session(ArtifactStore(open_store(str(tmp_path / "other")))) as other:
        execute(parse_job(FEATURES), other)
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "jobs.cli", "run", "spec.json", "--store", "other"]
        environment = {**os.environ, "RAY_ADDRESS": shared_ray.get_runtime_context().gcs_address}
        with subprocess.Popen(command, cwd=tmp_path, env=environment) as driver:
            wait_for_ledger(other, driver, "promoted")
            driver.send_signal(signal.SIGKILL)
        before = len(entries_of(other))
        resumed = execute(parse_job(spec), other)
        assert resumed.attempt == 2
        entries = entries_of(other)
        assert 0 < before < len(entries)
        assert decisions(entries) == wanted
        assert not list(other.artifacts.store.list(f"runs/{resumed.id}/trials/000/checkpoints/"))


FEATURES = {
    "kind": "classifier",
    "name": "glyph-features",
    "data": {"source": "digits"},
    "model": {"width": 8},
    "train": {"kimg": 2, "batch_size": 64},
}


def wait_for_ledger(session: Session, driver: subprocess.Popen[bytes], kind: str) -> None:
    """Until the sweep's ledger has an entry of a kind."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended by itself"
        runs = [r for r in session.runs.list() if r.kind == "sweep"]
        if runs and any(e["type"] == kind for e in entries_of(session)):
            return
        time.sleep(0.05)
    raise AssertionError(f"the ledger never had an entry {kind}")


def test_failed_trials_are_trained_again_and_more_are_added(
    shared_ray: Any,
    session: Session,
    search: Callable[..., dict[str, Any]],
    features: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command line, as a person does the day after. What went well is not trained again."""
    bad = 1e30
    rates = {"train.lr_g": {"choice": [3e-4, bad, 1e-3]}}
    spec = search({"algo": "grid", "trials": 2, "parallel": 1}, space=rates)
    record = execute(parse_job(spec), session)
    store = ["--store", str(tmp_path / "store"), "--json"]

    def rows() -> dict[str, dict[str, Any]]:
        return {row["trial"]: row for row in session.runs.get_json(record.id, "leaderboard.json")}

    def entries(kind: str) -> list[str | None]:
        return [entry.get("trial") for entry in entries_of(session) if entry["type"] == kind]

    before = rows()
    (broken,) = [name for name, row in before.items() if row["params"]["train.lr_g"] == bad]
    assert sorted(row["state"] for row in before.values()) == ["failed", "succeeded"]
    first = session.artifacts.resolve("found:latest")

    assert main(["sweep", "retry", record.id, "--failed", *store]) == 0
    assert entries("again") == [broken]
    assert rows()[broken]["state"] == "failed", "the same point, the same end"
    capsys.readouterr()
    assert main(["sweep", "extend", record.id, "--trials", "3", *store[:2]]) == 0
    after = rows()
    assert len(after) == 3
    (added,) = after.keys() - before.keys()
    lines = [line.partition(f"trial {added} ")[2] for line in capsys.readouterr().err.splitlines()]
    said = [line.split()[0] for line in lines if line]
    assert said[:2] == ["running", "succeeded"], "a line for each change of state"
    assert said[2:] in ([], ["measured"]), "and one for the best"
    assert after[added]["state"] == "succeeded"
    assert [entries("suggested").count(name) for name in after] == [1, 1, 1]
    good = next(name for name in before if name != broken)
    assert before[good]["final"] is not None
    assert after[good] == before[good], "a finalist's last measurement stays, though the addition may be better"
    found = session.artifacts.resolve("found:latest")
    best = min((after[good], after[added]), key=lambda row: row["objective"])
    assert found.facts["params"] == best["params"]
    assert (found.digest == first.digest) == (best is after[good])

    assert main(["sweep", "retry", record.id, good, *store]) == 4
    assert main(["sweep", "extend", record.id, "--trials", "3", *store]) == 4


def test_a_guard_ends_a_trial_and_leaves_a_picture(
    shared_ray: Any, session: Session, search: Callable[..., dict[str, Any]], features: None
) -> None:
    """No generator has a recall above 1; the guard of one of the trials never begins to look."""
    spec = search({"algo": "grid", "trials": 2, "parallel": 1}, space={"guards.after_kimg": {"choice": [0, 100]}})
    spec["base"]["guards"] = {"metrics": {"recall": ">= 1.1"}}
    spec["base"]["evaluation"]["every_kimg"] = 0.4
    record = execute(parse_job(spec), session)
    rows = {row["params"]["guards.after_kimg"]: row for row in session.runs.get_json(record.id, "leaderboard.json")}
    assert (rows[0]["state"], rows[100]["state"]) == ("failed", "succeeded")
    assert rows[0]["reason"].startswith("stopped by a guard: recall is ")
    trial = f"{record.id}/trials/{rows[0]['trial']}"
    (guard,) = [event for event in session.runs.events(trial) if event["type"] == "guard"]
    assert guard["nimg"] < 800
    assert session.artifacts.store.get(session.runs.grids(trial)[guard["grid"]]).startswith(b"\x89PNG")
    assert session.artifacts.resolve("found:latest").facts["params"] == {"guards.after_kimg": 100}


def test_a_population_exchanges_state(
    shared_ray: Any, session: Session, pretrain: Callable[..., Any], sweep: dict[str, Any], features: None
) -> None:
    """Three trials on two workers: one always waits in the store."""
    execute(pretrain(), session)
    sweep["base"]["train"]["kimg"] = 1.2
    sweep["space"] = {"transfer.freeze_d": {"int": [0, 2]}, "train.lr_d": {"choice": [2e-4, 4e-4, 1e-2]}}
    sweep["search"] = {
        "algo": "pbt",
        "trials": 3,
        "parallel": 2,
        "seed": 1,
        "pbt": {"every_kimg": 0.4, "quantile": 0.4},
    }
    del sweep["early_stop"]
    record = execute(parse_job(sweep), session)
    entries = entries_of(session)
    copies = [e for e in entries if e["type"] == "copied"]
    assert len(copies) == 2, "one of three, after each of two intervals"
    values = {(e["trial"], e["nimg"]): e["value"] for e in entries if e["type"] == "measured"}
    for copy in copies:
        assert values[copy["source"], copy["nimg"]] == min(v for (_, at), v in values.items() if at == copy["nimg"])
    assert len(values) == 9, "all trials were measured in all generations"
    rows = session.runs.get_json(record.id, "leaderboard.json")
    assert {row["state"] for row in rows} == {"succeeded"}
    assert all(row["objective"] == min(v for (t, _), v in values.items() if t == row["trial"]) for row in rows)
    found = session.artifacts.resolve("found:best")
    assert found.facts["params"] == rows[0]["params"]
    told = [e for e in session.runs.events(f"{record.id}/trials/{copies[0]['trial']}") if e["type"] == "resumed"]
    assert copies[0]["nimg"] in {e["nimg"] for e in told}
    left = [info.key for info in session.artifacts.store.list(f"runs/{record.id}/trials/")]
    assert not [key for key in left if "checkpoints" in key or "answers" in key]


def test_trials_of_two_workers_are_ray_train_runs(
    shared_ray: Any, session: Session, search: Callable[..., dict[str, Any]], features: None
) -> None:
    spec = search({"algo": "grid", "trials": 1, "parallel": 1}, {"scheduler": "asha", "grace_kimg": 0.4, "eta": 2})
    spec["space"] = {"train.lr_g": {"choice": [2e-4]}}
    spec["base"]["resources"] = {"workers": 2}
    record = execute(parse_job(spec), session)
    assert record.state == "succeeded"
    started = [
        event["workers"] for event in session.runs.events(f"{record.id}/trials/000") if event["type"] == "started"
    ]
    assert started == [2]
    (row,) = session.runs.get_json(record.id, "leaderboard.json")
    assert row["state"] == "succeeded"
    assert {e["type"] for e in entries_of(session)} >= {"measured", "promoted", "ended"}
