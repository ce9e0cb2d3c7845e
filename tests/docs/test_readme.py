"""The README does what it says: its specs are valid, its commands run, the places it names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from jobs.cli import main
from tlgan import methods

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHORT = [
    "base.resources.workers=0",  # two are the quickstart's test's
    "base.train.kimg=0.3",
    "base.train.batch_size=16",
    "base.model.width=4",
    "tune.base.train.kimg=0.2",
    "tune.base.train.batch_size=16",
    "tune.base.evaluation.samples=32",
    "tune.search.trials=2",
    "tune.search.parallel=1",
    "tune.early_stop.grace_kimg=0.1",
]


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language ("" for none), in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("tlgan ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def save_crops(folder: Path, count: int, seed: int) -> None:
    """Crops of scikit-learn's photographs as PNG files."""
    folder.mkdir()
    photos = load_sample_images().images
    rng = np.random.default_rng(seed)
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, side - 96)) for side in photo.shape[:2])
        Image.fromarray(photo[top : top + 96, left : left + 96]).save(folder / f"{number:03d}.png")


def spec_and_folders(here: Path) -> None:
    (here / "cats.yaml").write_text(blocks("yaml")[0])
    save_crops(here / "photos", 40, seed=0)
    save_crops(here / "cats", 24, seed=1)


def test_the_spec_is_valid(workdir: Path) -> None:
    spec_and_folders(workdir)
    assert main(["validate", "cats.yaml"]) == 0


def test_its_table_of_transfer_methods_is_that_of_the_registry() -> None:
    assert methods.table() in README


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_commands_run_as_written(
    shared_ray: Any,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec_and_folders(workdir)
    monkeypatch.setattr("jobs.pin.embedded_job", _quick_features)
    ran = commands()
    assert ["run", "cats.yaml", "-s", "base.train.kimg=500"] in ran
    for arguments in ran:
        extra = [a for o in SHORT for a in ("-s", o)] if arguments[0] == "run" else []
        assert main([*arguments, *extra]) == 0, f"tlgan {' '.join(arguments)}: {capsys.readouterr().err}"
    out = capsys.readouterr().out
    assert str(workdir / "model") in out or "model" in out
    assert Image.open("cats.png").size[0] >= 8 * 64
    assert "<html" in next(workdir.glob("cats*.html")).read_text()
    assert (workdir / "model" / "model.json").is_file()
    code = blocks("python")[0].replace("file:///data/store", (workdir / ".tlgan" / "store").as_uri())
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert tuple(names["images"].shape) == (64, 3, 64, 64)


def _quick_features() -> Any:
    """The embedded extractor's training, cut short: what it measures well is tested elsewhere."""
    from cluster.specfile import parse_job

    spec = {"kind": "classifier", "name": "glyph-features", "data": {"source": "digits"}, "model": {"width": 8}}
    return parse_job({**spec, "train": {"kimg": 2, "batch_size": 64}})


def test_every_place_named_exists() -> None:
    table = README.partition("## Map")[2].partition("## Add")[0]
    for row in table.splitlines():
        cells = re.findall(r"`([^`]+)`", row)
        folder = next((c for c in cells if c.endswith("/")), None)
        for name in cells if row.startswith("| `") and folder else []:
            assert (ROOT / name).exists() or (ROOT / folder / name).exists(), f"{name} in the README's map"


def test_make_help_lists_the_targets() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(target in text for target in ("quickstart", "test", "lint", "bench", "help"))
