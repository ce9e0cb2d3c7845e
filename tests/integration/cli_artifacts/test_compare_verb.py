"""`tlgan artifact diff`: which blocks changed and by how much, settings and metrics, with only what changed fetched."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_answers import Tlgan
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from cluster.comparing import compare, differences
from cluster.store import ArtifactStore
from tlgan.manifest import Manifest, Parent

Push = Callable[..., Manifest]
KID = {"extractor": "embedded", "weights": "ab", "samples_fake": 1000, "seed": 0}


@pytest.fixture
def push(tmp_path: Path) -> Push:
    """Publishes blocks (a name -> its tensors, bytes as they are) and other files."""

    def publish(name: str, blocks: dict[str, Any], files: dict[str, bytes] | None = None, **about: Any) -> Manifest:
        folder = tmp_path / name
        for block, tensors in blocks.items():
            target = folder / f"{block}.safetensors"
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(tensors, bytes):
                target.write_bytes(tensors)
            elif any(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
                save_torch(tensors, target)
            else:
                save_file(tensors, target)
        folder.mkdir(exist_ok=True)
        for path, data in (files or {}).items():
            (folder / path).write_bytes(data)
        return ArtifactStore().push(name, folder, **{"kind": "files", **about})

    return publish


def array(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def only_block(tlgan_cli: Tlgan, *options: str) -> dict[str, Any]:
    answer = tlgan_cli("artifact", "diff", "a:latest", "b:latest", "--json", *options)
    assert answer.code == 0
    (row,) = answer.data["blocks"]
    return dict(row)


def test_figures_of_blocks_and_tensors(tlgan_cli: Tlgan, any_store: str, push: Push) -> None:
    kept, steps = array(1, 2), np.array(7)
    left = {"w": array(3, 4), "v": array(0, 12), "n": steps, "old": array(1)}
    right = {"w": array(3, 5), "v": array(2, 12), "n": np.array(907), "new": array(1, 1)}
    push("a", {"G/b4": left, "G/b8": {"w": kept}, "G/b16": {"w": array(1)}})
    push("b", {"G/b4": right, "G/b8": {"w": kept}, "G/b32": {"w": array(2)}})
    found = tlgan_cli("artifact", "diff", "a:latest", "b:latest", "--json").data
    changes = {row["block"]: row["change"] for row in found["blocks"]}
    assert list(changes) == ["G/b4", "G/b8", "G/b16", "G/b32"]
    assert list(changes.values()) == ["changed", "unchanged", "only_a", "only_b"]
    block = found["blocks"][0]
    assert block["relative_l2"] == pytest.approx(math.sqrt((1 + 4) / (9 + 16 + 144)))
    assert block["max_abs"] == 2  # the counter is no weight
    tensors = {row["name"]: row for row in block["tensors"]}
    assert {name: row["change"] for name, row in tensors.items()} == {
        "n": "changed",
        "new": "only_b",
        "old": "only_a",
        "v": "changed",
        "w": "changed",
    }
    assert tensors["w"]["relative_l2"] == pytest.approx(0.2)
    assert (tensors["n"]["max_abs"], tensors["w"]["max_abs"]) == (900, 1)
    text = tlgan_cli("artifact", "diff", "a:latest", "b:latest").out
    assert "  G/b4   0.172        2        5 of 5" in text.splitlines()
    assert "    new  -            -        only in b, F32 2" in text.splitlines()
    assert "unchanged blocks: G/b8" in text.splitlines()
    assert "    w " not in text
    assert (
        "    w    0.2          1        changed, F32 2"
        in tlgan_cli("artifact", "diff", "a:latest", "b:latest", "-v").out.splitlines()
    )


def test_only_what_changed_is_fetched(push: Push, tmp_path: Path) -> None:
    big = {"w": np.zeros(20_000, dtype=np.float32)}
    a = push("a", {"b4": big, "b8": {"w": array(1)}}, {"data.bin": b"1" * 5000})
    b = push("b", {"b4": big, "b8": {"w": array(2)}, "b16": big}, {"data.bin": b"2" * 5000})
    artifacts = ArtifactStore(cache_dir=tmp_path / "fresh")
    found = compare(artifacts, a, b)
    size = next(entry.size for entry in a.files if entry.path == "b8.safetensors")
    assert artifacts.stats.downloaded == 2 * size
    assert [row["same_as"] for row in found["files"] if row["path"] == "b16.safetensors"] == ["b4.safetensors"]
    untouched = ArtifactStore(cache_dir=tmp_path / "other")
    assert compare(untouched, a, b, values=False)["blocks"][1]["change"] == "changed"
    assert untouched.stats.downloaded == 0
    assert not (tmp_path / "other").exists()


def test_digests_alone_need_nothing(tlgan_cli: Tlgan, push: Push) -> None:
    push("a", {"b4": {"w": array(1)}})
    push("b", {"b4": {"w": array(2)}})
    answer = tlgan_cli("artifact", "diff", "a:latest", "b:latest", "--digests")
    assert (answer.code, answer.err) == (0, "")
    assert "  b4     -            -        differ" in answer.out.splitlines()
    fetching = tlgan_cli("artifact", "diff", "a:latest", "b:latest")
    assert "fetching what changed" in fetching.err
    assert tlgan_cli("artifact", "diff", "a:latest", "b:latest", "-q").err == ""


@pytest.mark.parametrize(
    ("left", "right", "relative", "largest"),
    [
        (array(0, 0), array(0, 1), None, 1.0),
        (array(1), np.array([1], dtype=np.float16), 0.0, 0.0),
        (array(), np.array([], dtype=np.float16), 0.0, 0.0),
        (array(1, 2), array(1, float("nan")), None, None),
        (array(1, 2), array(1, 2, 3), None, None),
        (np.array([True, False]), np.array([True, True]), None, None),
    ],
)
def test_figures_that_say_nothing_are_left_out(
    tlgan_cli: Tlgan, push: Push, left: Any, right: Any, relative: float | None, largest: float | None
) -> None:
    push("a", {"b4": {"w": left}})
    push("b", {"b4": {"w": right}})
    block = only_block(tlgan_cli)
    assert (block["relative_l2"], block["max_abs"], block["problem"]) == (relative, largest, None)
    assert tlgan_cli("artifact", "diff", "a:latest", "b:latest", "-v").code == 0


def test_types_that_numpy_lacks(tlgan_cli: Tlgan, push: Push) -> None:
    push("a", {"b4": {"w": torch.tensor([4.0, 3.0], dtype=torch.bfloat16)}})
    push("b", {"b4": {"w": torch.tensor([4.0, 4.0], dtype=torch.float8_e4m3fn)}})
    assert only_block(tlgan_cli)["relative_l2"] == pytest.approx(0.2)


def test_a_block_that_can_not_be_read_is_said(tlgan_cli: Tlgan, push: Push) -> None:
    push("a", {"b4": {"w": array(1)}})
    push("b", {"b4": b"\x80\x04no tensors"})
    assert "no safetensors file" in only_block(tlgan_cli)["problem"]
    answer = tlgan_cli("artifact", "diff", "a:latest", "b:latest")
    assert (answer.code, "no safetensors file" in answer.out) == (0, True)


def test_documents_recipes_and_facts_by_path(tlgan_cli: Tlgan, push: Push) -> None:
    push(
        "a",
        {},
        {"m.json": b'{"x": {"y": [1, 2]}}', "bad.json": b"{}"},
        recipe={"t": {"lr": 0.1, "k": True}},
        facts={"n": 1},
    )
    parent = push("p", {}, {"f.txt": b"1"})
    push(
        "b",
        {},
        {"m.json": b'{"x": {"y": [1, 3]}}', "bad.json": b"{"},
        recipe={"t": {"lr": 0.2, "k": 1, "new": None}},
        facts={"n": 1},
        parents=[Parent(role="init_from", ref=parent.ref, digest=parent.digest)],
    )
    found = tlgan_cli("artifact", "diff", "a:latest", "b:latest", "--json").data
    assert found["recipe"] == [
        {"path": "t.k", "change": "changed", "a": True, "b": 1},
        {"path": "t.lr", "change": "changed", "a": 0.1, "b": 0.2},
        {"path": "t.new", "change": "only_b", "a": None, "b": None},
    ]
    assert found["facts"] == []
    assert [row["path"] for row in found["parents"]] == ["init_from"]
    documents = {row["path"]: row for row in found["documents"]}
    assert documents["m.json"]["differences"] == [{"path": "x.y[1]", "change": "changed", "a": 2, "b": 3}]
    assert "can't be read as JSON" in documents["bad.json"]["problem"]
    lines = tlgan_cli("artifact", "diff", "a:latest", "b:latest").out.splitlines()
    assert lines[lines.index("recipe") + 1 :][:4] == [
        "         a     b",
        "  t.k    true  1",
        "  t.lr   0.1   0.2",
        "  t.new  -     none",
    ]


def test_documents_nested_too_deep(push: Push) -> None:
    deep = b"[" * 5000 + b"1" + b"]" * 5000
    a, b = push("a", {}, {"m.json": deep}), push("b", {}, {"m.json": deep + b" "})
    (document,) = compare(ArtifactStore(), a, b)["documents"]
    assert "can't be read as JSON" in document["problem"]


def test_differences_of_anything() -> None:
    assert differences(None, {"a": 1}) == [{"path": "", "change": "changed", "a": None, "b": {"a": 1}}]
    assert differences({"a": [1]}, {"a": [1, 2]}) == [{"path": "a", "change": "changed", "a": [1], "b": [1, 2]}]
    assert differences({"a": 1}, {"a": 1.0}) == []


def test_only_metrics_that_were_taken_alike_are_subtracted(tlgan_cli: Tlgan, push: Push) -> None:
    alike, other = {**KID, "seed": 1}, {**KID, "samples_fake": 500}
    own = {"name": "own", "value": 1}

    def row(name: str, value: float, **protocol: Any) -> dict[str, Any]:
        return {"name": name, "value": value, "protocol": protocol}

    of_a = [row("kid", 0.2, **KID), row("fid", 9, **KID), row("recall", 0.5, **KID), own]
    push("a", {}, {"f": b"1"}, metrics=of_a)
    push(
        "b",
        {},
        {"f": b"2"},
        metrics=[
            row("kid", 0.5, **other),
            row("kid", 0.1, **alike),
            row("fid", 8, **other),
            row("recall", 0.4, **KID),
            {"name": "own", "value": 2},
        ],
    )
    rows = tlgan_cli("artifact", "diff", "a:latest", "b:latest", "--json").data["metrics"]
    told = [(row["name"], row["a"], row["b"], row["better"], sorted(row["unlike"])) for row in rows]
    assert told == [
        ("fid", 9, 8, None, ["samples_fake"]),
        ("kid", 0.2, 0.1, "b", []),
        ("kid", None, 0.5, None, []),
        ("own", 1, 2, None, ["protocol"]),
        ("recall", 0.5, 0.4, "a", []),
    ]
    assert [row["difference"] for row in rows] == [None, pytest.approx(-0.1), None, None, pytest.approx(-0.1)]
    text = tlgan_cli("artifact", "diff", "a:latest", "b:latest").out
    assert "taken differently: samples_fake 1000 and 500" in text
    assert "how they were taken is not recorded" in text


def test_a_version_and_itself(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    answer = tlgan_cli("artifact", "diff", "digits32:best", published[1].ref)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "they are the same version"
    assert tlgan_cli("artifact", "diff", "digits32:best", "digits32:latest", "--json").data["same"] is True


def test_models_of_this_tlgan_without_torch(tlgan_cli: Tlgan, published: tuple[Manifest, Manifest]) -> None:
    found = tlgan_cli("artifact", "diff", "glyphs32:latest", "digits32:best", "--json").data
    assert {row["block"].split("/")[0] for row in found["blocks"]} == {"G", "D", "G_ema"}
    assert all(row["relative_l2"] > 0 for row in found["blocks"] if row["change"] == "changed")
    code = (
        "import sys; from jobs.cli import main; assert main(['artifact', 'diff', 'glyphs32:latest', 'digits32:best']) == 0;"
        "bad = {'torch', 'ray', 'boto3'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)


@pytest.mark.parametrize(("bad", "code"), [("digits32", 2), ("digit32:best", 3), ("digits32:bset", 3)])
def test_references_that_name_nothing(
    tlgan_cli: Tlgan, published: tuple[Manifest, Manifest], bad: str, code: int
) -> None:
    for pair in ((bad, "glyphs32:latest"), ("glyphs32:latest", bad)):
        answer = tlgan_cli("artifact", "diff", *pair, "--json")
        assert (answer.code, answer.out) == (code, "")
        assert answer.error["hint"]


def test_a_damaged_block_ends_with_8(tlgan_cli: Tlgan, push: Push) -> None:
    a = push("a", {"b4": {"w": array(1)}})
    push("b", {"b4": {"w": array(2)}})
    (entry,) = a.files
    ArtifactStore().store.put(f"blobs/{entry.sha256[:2]}/{entry.sha256}", b"x" * entry.size)
    answer = tlgan_cli("artifact", "diff", "a:latest", "b:latest")
    assert (answer.code, answer.out) == (8, "")
    assert json.dumps(entry.sha256)[1:17] in answer.err
