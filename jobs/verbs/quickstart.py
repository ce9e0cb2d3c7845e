"""`tlgan quickstart`: the main job end to end, with embedded data, on this machine."""

from __future__ import annotations

import shutil
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import SetOption
from jobs.output import Context

ARTIFACT = "digits32:best"


def quickstart(
    ctx: Context,
    folder: Annotated[Path, typer.Argument(help="Where specs, images and the report go.")] = Path("quickstart"),
    set: SetOption = None,
) -> None:
    """Pretrain on glyphs, search how to fine-tune on 100 handwritten digits, evaluate, publish, pull, generate.

    Takes minutes on two cores. What is unchanged is not run again. -s changes the pipeline, as in -s base.train.kimg=8.
    """
    from cluster.specfile import load_spec
    from jobs.images import write_images, write_strip
    from jobs.verbs.report import write_report
    from jobs.verbs.run import run_attached
    from tlgan import load_generator

    begun = time.monotonic()
    specs = copy_specs(folder / "specs")
    grid = folder / "digits.png"
    record = run_attached(ctx, load_spec(specs / "pipeline.yaml", [f"samples.out={grid}", *(set or [])]))
    artifacts = ctx.open_store()
    model = artifacts.pull(ARTIFACT, fresh_folder(folder / "model"))
    ctx.say(f"pulled {ARTIFACT} to {model}")
    g = load_generator(model)
    write_images(g, fresh_folder(folder / "images"), "png", n=64, seed=0, truncation=1.0)
    write_strip(g, folder / "interpolation.png", steps=8, ends=3, seed=0, truncation=1.0)
    report = write_report(ctx, record.id, folder / "report.html")
    made = {
        "report": report,
        "grid": grid,
        "images": folder / "images",
        "interpolation": folder / "interpolation.png",
        "model": model,
        "specs": specs,
    }
    paths = {name: str(Path(path).absolute()) for name, path in made.items()}
    ctx.say(f"done in {time.monotonic() - begun:.0f} s")
    ctx.emit(
        {"run": record.id, "store": artifacts.url, **paths},
        "\n".join(f"{name:<14} {path}" for name, path in paths.items()),
    )


def copy_specs(dest: Path) -> Path:
    """The shipped specs where a person can read and change them; the ones there already are kept."""
    dest.mkdir(parents=True, exist_ok=True)
    for spec in (files("jobs") / "specs").iterdir():
        if spec.name.endswith(".yaml") and not (dest / spec.name).exists():
            (dest / spec.name).write_text(spec.read_text(encoding="utf-8"), encoding="utf-8")
    return dest


def fresh_folder(path: Path) -> Path:
    """`path`, with what an earlier quickstart left there removed."""
    shutil.rmtree(path, ignore_errors=True)
    return path
