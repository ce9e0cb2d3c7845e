"""The verb `export-onnx`: a generator for programs that have no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.output import Context
from tlgan.errors import Conflict, SpecError


def export_onnx(
    ctx: Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:alias, name@digest, or a folder that pull printed.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="New file to write.")],
    truncation: Annotated[
        float,
        typer.Option("--truncation", metavar="0..1", min=0.0, max=1.0, help="Part of the file; below 1: more typical."),
    ] = 1.0,
    name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Of a conditional generator: what the file draws.")
    ] = None,
) -> None:
    """Write a generator as ONNX: latents [N, D] in, float images [N, C, H, W] in [-1, 1] out. Prints the file's path.

    The file is run by onnxruntime and held against the model before it appears. Needs: pip install 'tlgan[onnx]'.
    """
    from jobs.images import beside
    from jobs.verbs.use import find_model

    dest = file.expanduser()
    if dest.suffix != ".onnx":
        raise SpecError(f"{str(file)!r} does not end with .onnx", hint=f"tlgan export-onnx {ref} model.onnx")
    if dest.exists():
        raise Conflict(f"{dest} exists", hint="choose another file")
    from tlgan.onnx import export, packages

    packages()
    model = find_model(ctx, ref)
    from tlgan.artifact import load_generator

    g = load_generator(model.path)
    with ctx.progress(f"exporting {ref}"), beside(dest) as part:
        difference = export(g, part, truncation, {"ref": model.ref or "", "digest": model.digest or ""}, name)
    facts: dict[str, Any] = {"path": str(dest.absolute()), "bytes": dest.stat().st_size, "truncation": truncation}
    about = {"latent_dim": g.latent_dim, "largest_difference": difference, "ref": model.ref, "digest": model.digest}
    ctx.emit({**facts, **about}, facts["path"])
