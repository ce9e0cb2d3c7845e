"""`tlgan artifact verify`: several artifacts, samples, repair from another store, and what is asked wrongly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_answers import Tlgan

from cluster.store import ArtifactStore, Version, open_store
from cluster.store.layout import blob_key
from tlgan.manifest import Manifest

Published = tuple[Manifest, Manifest]


def spoil(manifest: Manifest, path: str, data: bytes | None) -> None:
    entry = next(entry for entry in manifest.files if entry.path == path)
    store = ArtifactStore().store
    store.delete(blob_key(entry)) if data is None else store.put(blob_key(entry), data)


def test_the_whole_store(tlgan_cli: Tlgan, published: Published) -> None:
    answer = tlgan_cli("artifact", "verify", "--all")
    assert answer.code == 0
    assert answer.out.startswith("2 artifacts are whole: ")
    assert answer.out.endswith("(sizes only; --full hashes every byte)\n")
    full = tlgan_cli("artifact", "verify", "--all", "--full", "--json").data
    blobs = {blob_key(entry): entry.size for manifest in published for entry in manifest.files}
    assert (full["ok"], full["blobs"], full["bytes"], full["read_bytes"]) == (
        True, len(blobs), sum(blobs.values()), sum(blobs.values()),
    )  # fmt: skip
    assert sorted(one["ref"] for one in full["artifacts"]) == sorted(manifest.ref for manifest in published)
    assert all(one["full"] for one in full["artifacts"])


def test_a_sample_says_what_it_read_and_how_to_repeat_it(tlgan_cli: Tlgan, published: Published) -> None:
    answer = tlgan_cli("artifact", "verify", "--all", "--sample", "5%")
    assert answer.code == 0
    assert "% of the bytes hashed: " in answer.out
    seed = answer.out.partition("--seed ")[2].partition(" ")[0]
    again = tlgan_cli("artifact", "verify", "--all", "--sample", "5%", "--seed", seed)
    assert again.out == answer.out
    data = tlgan_cli("artifact", "verify", "--all", "--sample", "5%", "--seed", seed, "--json").data
    assert (data["sample"], data["seed"]) == (0.05, int(seed))
    assert 0.05 <= data["read_bytes"] / data["bytes"] < 0.6


def test_several_references_are_told_apart(tlgan_cli: Tlgan, published: Published) -> None:
    parent, child = published
    spoil(child, "model.json", b"short")
    answer = tlgan_cli("artifact", "verify", "digits32:best", "glyphs32:latest", child.ref)
    assert answer.code == 8
    assert answer.out.startswith(f"{child.ref}: model.json: blobs/")
    shared = "model.json" in {entry.path for entry in parent.files if entry in child.files}
    assert len(answer.out.splitlines()) == 1 + shared
    assert "--repair URL" in answer.err


def test_another_store_mends_what_it_can(tlgan_cli: Tlgan, published: Published, workdir: Path) -> None:
    shutil.copytree("store", "copy")
    shutil.rmtree("cache", ignore_errors=True)
    parent, child = published
    spoil(child, "D/b4.safetensors", None)
    size = next(entry.size for entry in child.files if entry.path == "D/b8.safetensors")
    spoil(child, "D/b8.safetensors", b"x" * size)
    Path("store", Version.of(parent).key).write_bytes(b"{}" * 40)
    answer = tlgan_cli("artifact", "verify", "--all", "--full", "--repair", "copy")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split(": ")[:2] for line in lines[:-1]] == [
        ["mended", child.ref], ["mended", child.ref], ["mended", parent.ref],
    ]  # fmt: skip
    assert tlgan_cli("artifact", "verify", "--all", "--full").code == 0
    spoil(child, "D/b4.safetensors", None)
    shutil.rmtree("copy/blobs")
    refused = tlgan_cli("artifact", "verify", "digits32:best", "--repair", "copy", "--json")
    assert refused.code == 8
    assert (refused.data["ok"], refused.data["repaired"]) == (False, [])
    assert refused.data["problems"][0].endswith(
        "not mended: file://" + str(workdir / "copy") + " has no whole copy of it"
    )
    assert "--repair" not in refused.error["hint"]


def test_a_damaged_alias_is_found(tlgan_cli: Tlgan, published: Published) -> None:
    Path("store/aliases/digits32/best.json").write_text("{")
    answer = tlgan_cli("artifact", "verify", "--all")
    assert answer.code == 8
    assert answer.out.startswith("alias digits32:best: ")
    assert "aliases in file://" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "nothing to verify was named"),
        (("digits32:best", "--all"), 2, "both references and --all"),
        (("digits32:best", "--full", "--sample", "5%"), 2, "expected one of them"),
        (("digits32:best", "--sample", "0%"), 2, "no share of the bytes"),
        (("digits32:best", "--sample", "5"), 2, "no share of the bytes"),
        (("digits32:best", "--sample", "101%"), 2, "no share of the bytes"),
        (("digits32:best", "--seed", "5"), 2, "--sample is missing"),
        (("digits32:best", "--resume"), 2, "no interrupted verification"),
        (("digits32:best", "--repair", "store"), 2, "is the store itself"),
        (("digits32:best", "--repair", "http://x"), 2, "is no store that tlgan knows"),
        (("digits32:best", "digits32:bset"), 3, 'did you mean "best"?'),
    ],
)
def test_mistakes(tlgan_cli: Tlgan, published: Published, arguments: tuple[str, ...], code: int, said: str) -> None:
    answer = tlgan_cli("artifact", "verify", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


def test_an_empty_store_is_whole_and_said_to_be_empty(tlgan_cli: Tlgan) -> None:
    answer = tlgan_cli("artifact", "verify", "--all")
    assert answer.code == 0
    assert "nothing is published in file://" in answer.err
    assert not Path("store").exists()


def test_a_store_of_another_kind_is_refused(tlgan_cli: Tlgan, workdir: Path) -> None:
    open_store(str(workdir / "store")).put("FORMAT.json", b'{"format":"x","version":9}')
    answer = tlgan_cli("artifact", "verify", "--all")
    assert answer.code == 5
    assert "has format x 9" in answer.err
