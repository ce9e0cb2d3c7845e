"""Resume is exact: N + M steps equal N steps, the end of the process, and M steps, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import differing, flat, pair, recipe

from tlgan import checkpoint
from tlgan.artifact import save_networks
from tlgan.errors import SpecError

CASES: dict[str, dict[str, Any]] = {
    "dcgan, r1": {"loss": {"r1": 0.5, "r1_interval": 3}, "flip": True},
    "resnet, hinge": {"model": {"arch": "resnet"}, "loss": {"name": "hinge"}},
    "diffaugment": {"augment": {"name": "diffaugment"}},
    "wasserstein, gp, n_critic": {"loss": {"name": "wasserstein", "gp": 10.0}, "n_critic": 2},
    "stylegan2, path lengths": {
        "model": {"arch": "stylegan2", "mapping_layers": 2, "max_width": 16},
        "loss": {"path_length": 2.0, "path_length_interval": 2},
    },
    "bf16": {"precision": "bf16"},
    "freeze": {"transfer": {"method": "freeze", "freeze_d": 1, "freeze_g": 1}},
    "scale_shift": {"transfer": {"method": "scale_shift"}},
    "ewc, lecam": {"transfer": {"method": "ewc", "fisher_samples": 4}, "loss": {"lecam": 0.3}},
    "cdc": {"transfer": {"method": "cdc"}},
    "singular_values": {"transfer": {"method": "singular_values"}},
    "minegan": {"transfer": {"method": "minegan", "miner_kimg": 0.028}},
    "kernel_modulation": {"transfer": {"method": "kernel_modulation", "probe_kimg": 0.04, "fisher_samples": 4}},
}


ALIKE = ("resnet, hinge", "diffaugment", "scale_shift", "ewc, lecam", "singular_values")  # to others here, for a resume


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.minutes if case in ALIKE else ()) for case in CASES]
)
def test_stopped_and_resumed_equals_uninterrupted(case: str, train, tmp_path: Path) -> None:
    of = recipe(**CASES[case])
    parent = None
    if of.transfer:
        parent = tmp_path / "parent"
        G, D = pair(seed=1)
        save_networks(parent, {"G_ema": G, "D": D}, type="gan")
    total = 20 * of.train.n_critic * of.train.batch_size
    # ticks of 3 steps and checkpoints of 5: neither is a multiple of the other
    step = of.train.n_critic * of.train.batch_size
    marks = {"checkpoint_every": 5 * step, "tick_every": 3 * step, "grid_every": 4 * step, "keep": 9}
    whole = train(of, total, "whole", parent=parent, **marks)
    first = train(of, total, "halves", parent=parent, stop_at=9 * step, **marks)
    assert not first.result.finished
    assert first.result.nimg == 9 * step
    second = train(of, total, "halves", parent=parent, **marks)
    assert second.result.finished
    assert [e["type"] for e in second.events[:1]] == ["resumed"]
    assert differing(whole.state(), second.state()) == []
    assert second.facts() == whole.facts(after=9 * step)
    last = [checkpoint.load(checkpoint.newest(tmp_path / w / "checkpoints"), of) for w in ("whole", "halves")]
    assert differing(flat(last[0][0]), flat(last[1][0])) == []  # optimisers, too
    assert {k: v for k, v in last[0][1].items() if k != "seconds"} == {
        k: v for k, v in last[1][1].items() if k != "seconds"
    }


@pytest.mark.parametrize("case", ["wasserstein, gp, n_critic", "dcgan, r1"])
def test_stopped_between_two_ticks_reports_what_the_whole_run_does(case: str, train, tmp_path: Path) -> None:
    """As by a notice that the machine is taken away: the checkpoint is taken at once, wherever that is."""
    of = recipe(**CASES[case])
    step = of.train.n_critic * of.train.batch_size
    marks = {"checkpoint_every": 8 * step, "tick_every": 6 * step, "grid_every": 4 * step}
    whole = train(of, 20 * step, "whole", **marks)
    first = train(of, 20 * step, "halves", stop_after_steps=10, **marks)
    assert first.result.nimg == 10 * step
    second = train(of, 20 * step, "halves", **marks)
    assert second.events[0]["nimg"] == 10 * step
    assert differing(whole.state(), second.state()) == []
    assert second.facts() == whole.facts(after=10 * step)


def test_killed_and_resumed_equals_uninterrupted(train, tmp_path: Path) -> None:
    of = recipe(loss={"r1": 0.5, "r1_interval": 3}, augment={"name": "diffaugment"})
    (tmp_path / "recipe.json").write_text(of.model_dump_json())
    script = str(Path(__file__).with_name("killed_run.py"))
    arguments = [str(tmp_path / "recipe.json"), str(tmp_path / "killed"), "80", "20", "48"]
    done = subprocess.run([sys.executable, script, *arguments], check=False, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert checkpoint.newest(tmp_path / "killed" / "checkpoints").name == "ckpt-000000000040"
    resumed = train(of, 80, "killed", checkpoint_every=20, tick_every=4)
    assert (resumed.events[0]["type"], resumed.events[0]["nimg"]) == ("resumed", 40)
    whole = train(of, 80, "whole", checkpoint_every=20, tick_every=4)
    assert differing(whole.state(), resumed.state()) == []
    assert resumed.facts() == whole.facts(after=40)


def test_every_mutable_tensor_is_in_the_checkpoint(train, tmp_path: Path) -> None:
    outcome = train(recipe(), 8, checkpoint_every=8)
    state, meta = checkpoint.load(checkpoint.newest(tmp_path / "a" / "checkpoints"), recipe())
    networks = outcome.result.networks
    assert set(state) == {*networks, "opt_G", "opt_D"}
    for which, network in networks.items():
        assert differing(dict(network.state_dict()), state[which]) == []
    for which in ("G", "D"):
        slots = {
            f"{name}/{slot}"
            for name, _ in networks[which].named_parameters()
            for slot in ("exp_avg", "exp_avg_sq", "step")
        }
        assert set(state[f"opt_{which}"]) == slots
    assert meta["nimg"] == 8
    assert meta["recipe"] == recipe().digest


def test_a_finished_run_is_not_trained_again(train) -> None:
    first = train(recipe(), 12, checkpoint_every=8)
    again = train(recipe(), 12, checkpoint_every=8)
    assert again.result.finished
    assert again.result.nimg == 12
    assert [e["type"] for e in again.events] == ["resumed"]
    assert differing(first.state(), again.state()) == []


def test_a_checkpoint_half_written_is_ignored_and_cleared_away(train, tmp_path: Path) -> None:
    train(recipe(), 12, stop_at=8, checkpoint_every=4, tick_every=4)
    root = tmp_path / "a" / "checkpoints"
    partial = root / ".partial-abc"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"\0" * 10)
    outcome = train(recipe(), 12, checkpoint_every=4, tick_every=4)
    assert (outcome.events[0]["type"], outcome.events[0]["nimg"]) == ("resumed", 8)
    assert sorted(f.name for f in root.iterdir()) == ["ckpt-000000000008", "ckpt-000000000012"]


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "a bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    file: str, damage: str, train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(recipe(), 16, "whole", checkpoint_every=4, tick_every=4)
    train(recipe(), 16, stop_at=8, checkpoint_every=4, tick_every=4)
    newest = tmp_path / "a" / "checkpoints" / "ckpt-000000000008"
    data = (newest / file).read_bytes()
    if damage == "missing":
        (newest / file).unlink()
    else:
        bad = data[:-7] if damage == "truncated" else bytes([*data[:-9], data[-9] ^ 0x80, *data[-8:]])
        (newest / file).write_bytes(bad)
    resumed = train(recipe(), 16, checkpoint_every=4, tick_every=4)
    assert (resumed.events[0]["type"], resumed.events[0]["nimg"]) == ("resumed", 4)
    assert "ckpt-000000000008" in caplog.text
    assert differing(whole.state(), resumed.state()) == []


def test_the_only_checkpoint_damaged_starts_the_run_again(train, tmp_path: Path) -> None:
    train(recipe(), 8, stop_at=4, checkpoint_every=4, tick_every=4)
    (tmp_path / "a" / "checkpoints" / "ckpt-000000000004" / "state.json").write_text("")
    again = train(recipe(), 8, checkpoint_every=4)
    assert again.events[0]["type"] == "started"
    assert again.result.finished


def test_a_checkpoint_of_an_older_version_has_no_digest_and_is_read(train, tmp_path: Path) -> None:
    train(recipe(), 8, stop_at=4, checkpoint_every=4, tick_every=4)
    meta = tmp_path / "a" / "checkpoints" / "ckpt-000000000004" / "state.json"
    old = {k: v for k, v in json.loads(meta.read_text()).items() if k not in ("sha256", "fields", "sums")}
    meta.write_text(json.dumps(old))
    assert train(recipe(), 8, checkpoint_every=4).events[0]["nimg"] == 4


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_checkpoints_are_kept(keep: int, train, tmp_path: Path) -> None:
    outcome = train(recipe(), 24, checkpoint_every=4, keep=keep)
    assert [event["nimg"] for event in outcome.of_type("checkpoint")] == [4, 8, 12, 16, 20, 24]
    assert outcome.saved[-1] == 24
    assert outcome.saved == sorted(set(outcome.saved)), "each at most once, and one at a time"
    kept = sorted(f.name for f in (tmp_path / "a" / "checkpoints").iterdir())
    assert kept == [f"ckpt-{nimg:012d}" for nimg in (4, 8, 12, 16, 20, 24)[-keep:]]


def test_another_recipes_checkpoint_is_refused(train) -> None:
    train(recipe(), 8, stop_at=4, checkpoint_every=4, tick_every=4)
    other = recipe(lr_g=1e-5)
    message = (
        f"belongs to recipe {recipe().digest[:12]}, the run's is {other.digest[:12]}: train.lr_g was 0.0002, is 1e-05"
    )
    with pytest.raises(SpecError, match=message) as error:
        train(other, 8, checkpoint_every=4)
    assert "resume continues the same recipe" in str(error.value.hint)


def test_a_checkpoint_of_another_format_is_refused(train, tmp_path: Path) -> None:
    train(recipe(), 4, checkpoint_every=4)
    meta = tmp_path / "a" / "checkpoints" / "ckpt-000000000004" / "state.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 2}))
    with pytest.raises(SpecError, match="has checkpoint format 2; this tlgan reads 1"):
        train(recipe(), 8, checkpoint_every=4)


def test_saving_again_replaces_the_whole_directory(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path, 4, {"G": {"w": torch.full((3,), value)}}, {"recipe": recipe().digest})
    state, _ = checkpoint.load(tmp_path / "ckpt-000000000004", recipe())
    assert state["G"]["w"].tolist() == [2.0, 2.0, 2.0]
    assert [f.name for f in tmp_path.iterdir()] == ["ckpt-000000000004"]


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nothing") is None
    assert checkpoint.newest(tmp_path) is None
