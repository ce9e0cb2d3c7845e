"""Verbs that put a published model to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.output import Context, counted
from tlgan.errors import Conflict, NotFound, SpecError, did_you_mean

FORMATS = {"grid": ".png", "png": "", "npz": ".npz"}
IMAGES = 64  # when --n is not given
ENDS = 2  # the same for --interpolate
MOST = 10_000_000


@dataclass(frozen=True)
class Model:
    """A generator's folder. `ref` and `digest` are None for a folder that was given as such."""

    path: Path
    ref: str | None = None
    digest: str | None = None
    stem: str = "samples"


def generate(
    ctx: Context,
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="name:alias, name@digest, or a folder that pull printed.", show_default=False
        ),
    ],
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", metavar="N", min=1, max=MOST, help=f"Number of images; default: {IMAGES}."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The same seed draws the same images.")
    ] = 0,
    truncation: Annotated[
        float,
        typer.Option(
            "--truncation", metavar="0..1", min=0.0, max=1.0, help="Below 1: more typical images, less variety."
        ),
    ] = 1.0,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Of a conditional generator: what to draw. Repeatable, in turn."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="PATH", help="File, or folder for png; default: by REF's name.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="grid|png|npz", help="One sheet, a folder of PNGs, or an array [N,C,H,W]."),
    ] = None,
    interpolate: Annotated[
        int | None,
        typer.Option(
            "--interpolate",
            metavar="STEPS",
            min=1,
            help="A strip instead: STEPS images from one latent to the next, of --n (2).",
        ),
    ] = None,
    video: Annotated[
        bool,
        typer.Option(
            "--video", help="A film that loops through --n (4) images, --interpolate (30) frames between two."
        ),
    ] = False,
    style_mix: Annotated[
        str | None,
        typer.Option(
            "--style-mix", metavar="BLOCK", help="Styles of --n (6) images up to BLOCK (b16), of others from there on."
        ),
    ] = None,
) -> None:
    """Draw images with a published generator and print where they are."""
    if video or style_mix:
        from jobs.verbs.latents import Moving, draw_film, draw_mixture

        wanted = Moving(n, seed, truncation, out, interpolate, form, classes)
        if video and style_mix:
            raise SpecError("--video does not go with --style-mix")
        if video:
            draw_film(ctx, ref, wanted)
        else:
            draw_mixture(ctx, ref, wanted, str(style_mix))
    else:
        _draw(ctx, ref, n, seed, truncation, classes or [], out, form, interpolate)


def _draw(
    ctx: Context,
    ref: str,
    n: int | None,
    seed: int,
    truncation: float,
    classes: list[str],
    out: str | None,
    form: str | None,
    interpolate: int | None,
) -> None:
    """Images as a sheet, a folder or an array, or a strip from one to the next."""
    chosen = format_of(form, out, interpolate is not None)
    check_destination(out, chosen)
    model = find_model(ctx, ref)
    dest = Path(out).expanduser() if out else Path(model.stem + FORMATS[chosen])
    check_destination(str(dest), chosen)

    from jobs.images import write_images, write_strip
    from tlgan.artifact import load_generator
    from tlgan.sampling import labels_of

    g = load_generator(model.path)
    ends, count = n or ENDS, n or IMAGES
    labels_of(g, seed, 0, 1, classes)  # refuses an unknown class before anything is drawn
    if interpolate is not None:
        count = (ends - 1) * interpolate + 1
    with ctx.progress(f"drawing {counted(count, 'image')}"):
        if interpolate is not None:
            write_strip(g, dest, steps=interpolate, ends=ends, seed=seed, truncation=truncation, classes=classes)
        else:
            write_images(g, dest, chosen, n=count, seed=seed, truncation=truncation, classes=classes)
    path = str(dest.absolute())
    facts = {"path": path, "images": count, "format": "strip" if interpolate else chosen}
    ctx.emit(
        {**facts, "seed": seed, "truncation": truncation, "classes": classes, "ref": model.ref, "digest": model.digest},
        path,
    )


def format_of(form: str | None, out: str | None, is_strip: bool) -> str:
    """The format asked for, or what the end of `out` says. Raises `SpecError` when the two don't go together."""
    if form is not None and form not in FORMATS:
        message = f'unknown format "{form}"; expected one of: {", ".join(FORMATS)}'
        raise SpecError(message, hint=did_you_mean(form, FORMATS))
    if is_strip:
        if form not in (None, "grid"):
            raise SpecError(f"--interpolate draws one PNG; it does not go with --format {form}")
        form = "grid"
    suffix = Path(out).suffix.lower() if out else ""
    if form is None:
        is_folder = out is not None and (out.endswith("/") or Path(out).expanduser().is_dir())
        return "npz" if suffix == ".npz" else "png" if is_folder else "grid"
    if suffix in (".png", ".npz") and suffix != FORMATS[form]:
        fitting = {".png": "grid", ".npz": "npz"}[suffix]
        raise SpecError(f"--format {form} does not write a file {out}", hint=f"--format {fitting} does")
    return form


def check_destination(out: str | None, form: str) -> None:
    """Raises `Conflict` before anything is fetched or drawn."""
    if out is None:
        return
    dest = Path(out).expanduser()
    if form == "png":
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise Conflict(f"{dest} exists and is no empty folder", hint="choose another folder with --out")
    elif dest.is_dir():
        raise Conflict(
            f"{dest} is a folder; expected a file to write", hint=f"--out {dest / ('images' + FORMATS[form])}"
        )


def find_model(ctx: Context, ref: str) -> Model:
    """A folder when `ref` is written like one (or has no version and is one), else the pulled artifact.

    Raises `NotFound`, `SpecError` for what is no generator, and everything that `pull` raises.
    """
    from cluster.contents import MODEL_FILE
    from tlgan.naming import ArtifactRef

    folder = Path(ref).expanduser()
    written_as_path = "/" in ref or ref.startswith((".", "~"))
    if written_as_path or (":" not in ref and "@" not in ref and (folder / MODEL_FILE).is_file()):
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", hint="expected name:alias, or the folder that pull printed")
        return _checked(Model(folder))
    store = ctx.open_store()
    wanted = ArtifactRef.parse(ref)
    manifest = store.resolve(wanted)
    if manifest.kind != "gan":
        raise SpecError(f"{ref} is of kind {manifest.kind}; expected a generator, kind gan")
    from jobs.verbs.transfers import pull_shown

    path = pull_shown(ctx, store, manifest)
    stem = f"{wanted.name}-{wanted.alias or (wanted.digest or '')[:16]}"
    return _checked(Model(path, manifest.ref, manifest.digest, stem))


def _checked(model: Model) -> Model:
    from tlgan.artifact import describe

    about: dict[str, Any] = describe(model.path)
    if about.get("type") != "gan":
        raise SpecError(f"{model.path} is a model of type {about.get('type')}; expected a generator, type gan")
    return model
