"""`tlgan data ls / pack / show`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.store import ArtifactStore
from jobs.cli import main
from tlgan.data import prepare
from tlgan.recipe import DataSpec


@pytest.fixture(autouse=True)
def _own_store(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGAN_STORE", f"file://{workdir}/store")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["data", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_ls_counts_the_sources_of_every_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ls", "--json")
    listed = json.loads(out)
    assert code == 0
    rows = {row["source"]: row for row in listed["sources"]}
    assert rows["digits"]["images"] == 1797
    assert rows["glyphs"]["images"] > 25_000
    assert rows["folder"]["needs"] == "path"
    assert listed["datasets"] == []


def test_pack_publishes_what_the_options_ask_for(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-s", "resolution=16", "-s", "limit=40", "-s", 'classes=["1", "7"]', "--alias", "tiny"]
    code, out, _ = run(capsys, "pack", "digits", "ones", *options, "--json")
    packed = json.loads(out)
    assert code == 0
    assert (packed["count"], packed["resolution"], packed["channels"], packed["shards"]) == (40, 16, 1, 1)
    manifest = ArtifactStore().resolve("ones:tiny")
    assert manifest.kind == "dataset"
    assert manifest.digest == packed["digest"] == ArtifactStore().resolve("ones:latest").digest
    assert list(manifest.facts["labels"]) == ["1", "7"]
    pulled = prepare(DataSpec(artifact="ones:tiny"), resolution=16, artifact_path=ArtifactStore().pull(manifest))
    asked = prepare(DataSpec(source="digits", limit=40, classes=["1", "7"]), resolution=16)
    assert pulled.digest == asked.digest == packed["content"]


def test_packing_again_changes_nothing_and_ls_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, "pack", "digits", "some", "-s", "limit=5")
    again = run(capsys, "pack", "digits", "some", "-s", "limit=5")
    assert first == again
    assert "packing at 32 px" in first[2]
    listed = json.loads(run(capsys, "ls", "--json")[1])
    assert [row["count"] for row in listed["datasets"]] == [5]
    assert len(ArtifactStore().versions("some")) == 1


def test_pack_a_folder_with_a_broken_file(capsys: pytest.CaptureFixture[str], workdir: Path) -> None:
    (workdir / "pictures" / "red").mkdir(parents=True)
    Image.fromarray(np.full((20, 20, 3), 7, np.uint8)).save(workdir / "pictures" / "red" / "a.png")
    (workdir / "pictures" / "b.png").write_text("broken")
    assert run(capsys, "pack", "pictures", "mine", "-s", "resolution=16")[0] == 0
    code, out, err = run(capsys, "show", "mine:latest", "--json", "--grid", "sheet.png")
    shown = json.loads(out)
    assert code == 0
    assert shown["labels"] == {"red": 1}
    assert shown["skipped"] == [["b.png", "not an image of a known format"]]
    assert "sheet.png" in err
    assert Image.open("sheet.png").size == (64, 64)


def test_show_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "pack", "photos", "ph", "-s", "crops=6", "-s", "resolution=16")
    code, out, _ = run(capsys, "show", "ph:latest")
    assert code == 0
    assert "6 images of 16x16x3 in 1 shard" in out
    assert "china 3, flower 3" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pack", "glyps", "x"], 2, 'did you mean "glyphs"?'),
        (["pack", "./absent", "x"], 3, "there is no folder ./absent"),
        (["pack", "folder", "x"], 2, "source folder needs `path`"),
        (["pack", "digits", "Bad/Name"], 2, "not valid"),
        (["pack", "digits", "x", "-s", "classes=[eleven]"], 2, "unknown classes eleven"),
        (["show", "digits"], 2, "does not say which version"),
        (["show", "absent:latest"], 3, "absent"),
    ],
)
def test_mistakes_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert ArtifactStore().names() == []


def test_all_mistakes_of_the_options_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "pack", "digits", "x", "-s", "resolutoin=64", "-s", "limit=abc", "-s", "seed")
    assert code == 2
    assert "3 mistakes" in err
    assert 'did you mean "resolution"?' in err


def test_show_refuses_other_kinds(capsys: pytest.CaptureFixture[str], workdir: Path) -> None:
    (workdir / "file.txt").write_text("x")
    ArtifactStore().push("notes", workdir / "file.txt", kind="files")
    code, _, err = run(capsys, "show", "notes:latest")
    assert code == 2
    assert "is of kind files, not a dataset" in err
