"""Verbs that look into a generator's latents: films, style mixing, directions, projection, blending of two models."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, counted
from jobs.verbs.use import Model, check_destination, find_model
from tlgan.errors import Conflict, NotFound, SpecError

if TYPE_CHECKING:
    from tlgan.latent.projection import Projection

FPS = 25
LOOP_ENDS, LOOP_STEPS, MIX = 4, 30, 6
SHOWN = 64  # px: smaller images are enlarged on sheets
RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="name:alias, name@digest, or a folder that pull printed.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The same seed, the same result.")
]

ClassOption = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="Of a conditional generator: which class.")
]


@dataclass(frozen=True)
class Moving:
    """What `generate` was asked for; None where a person said nothing."""

    n: int | None
    seed: int
    truncation: float
    out: str | None
    steps: int | None
    form: str | None
    classes: list[str] | None

    @property
    def name(self) -> str | None:
        """The one class that is drawn. Raises `SpecError` for several."""
        if len(self.classes or []) > 1:
            raise SpecError("expected one --class: all images here are of one")
        return self.classes[0] if self.classes else None

    def refuse(self, option: str, **given: Any) -> None:
        """Raises `SpecError` for options that don't go with `option`."""
        for name, value in given.items():
            if value is not None:
                raise SpecError(f"{option} does not go with --{name.replace('_', '-')}")


def draw_film(ctx: Context, ref: str, wanted: Moving) -> None:
    """`generate --video`."""
    from jobs.films import FORMATS, encoder, write_film

    wanted.refuse("--video", format=wanted.form)
    suffix = Path(wanted.out).suffix.lower() if wanted.out else ""
    if wanted.out and suffix not in FORMATS:
        raise SpecError(f"--video writes .mp4 or .gif; received {wanted.out}", hint="--out film.gif")
    check_destination(wanted.out, "grid")
    if suffix == ".mp4" and encoder() is None:
        raise SpecError(
            "no ffmpeg is on this machine to write mp4", hint="--out film.gif, or pip install imageio-ffmpeg"
        )
    model = find_model(ctx, ref)
    dest = Path(wanted.out).expanduser() if wanted.out else Path(f"{model.stem}{'.mp4' if encoder() else '.gif'}")
    check_destination(str(dest), "grid")

    from tlgan.artifact import load_generator
    from tlgan.latent.loops import loop
    from tlgan.latent.space import of_class

    ends = wanted.n or LOOP_ENDS
    frames = ends * (wanted.steps or LOOP_STEPS)
    batches = loop(of_class(load_generator(model.path), wanted.name), frames, ends, wanted.seed, wanted.truncation)
    with ctx.progress(f"drawing {counted(frames, 'frame')}"):
        count = write_film(batches, dest, FPS)
    facts: dict[str, Any] = {
        "path": str(dest.absolute()),
        "images": count,
        "format": dest.suffix[1:].lower(),
        "fps": FPS,
    }
    about = {"seed": wanted.seed, "truncation": wanted.truncation, "ref": model.ref, "digest": model.digest}
    ctx.emit({**facts, **about}, facts["path"])


def draw_mixture(ctx: Context, ref: str, wanted: Moving, block: str) -> None:
    """`generate --style-mix`."""
    wanted.refuse("--style-mix", format=wanted.form, interpolate=wanted.steps)
    check_destination(wanted.out, "grid")
    model = find_model(ctx, ref)
    dest = _destination(wanted.out, model, f"mix-{block}")

    from tlgan.artifact import load_generator
    from tlgan.latent.mixing import mixing_sheet, mixing_table
    from tlgan.latent.space import of_class

    size = wanted.n or MIX
    with ctx.progress(f"drawing {counted(size * size, 'mixture')}"):
        g = of_class(load_generator(model.path), wanted.name)
        tables = mixing_table(g, block, size, size, wanted.seed, wanted.truncation)
        _save_sheet(mixing_sheet(*tables), dest, rows=size + 1)
    facts: dict[str, Any] = {"path": str(dest.absolute()), "images": size * size, "format": "grid", "from": block}
    about = {"seed": wanted.seed, "truncation": wanted.truncation, "ref": model.ref, "digest": model.digest}
    ctx.emit({**facts, **about}, facts["path"])


def directions(
    ctx: Context,
    ref: RefArgument,
    count: Annotated[int, typer.Option("--n", "-n", metavar="N", min=1, max=100, help="How many directions.")] = 6,
    levels: Annotated[
        list[str] | None, typer.Option("--level", metavar="BLOCK", help="Only styles of this level (b16). Repeatable.")
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", metavar="X", min=0.01, max=100, help="How far, in typical distances.")
    ] = 1.0,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=2, max=64, help="Images of each direction.")] = 7,
    seed: SeedOption = 0,
    name: ClassOption = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="PNG of the grid; beside it an npz of the vectors."),
    ] = None,
) -> None:
    """Find the directions that change a generator's images most, in closed form, and draw them: one a row.

    SeFa (Shen & Zhou 2021): eigenvectors of the first weights that read a latent or a style. Nothing is trained.
    """
    check_destination(out, "grid")
    model = find_model(ctx, ref)
    dest = _destination(out, model, "directions")
    vectors = dest.with_suffix(".npz")

    import numpy as np

    from tlgan.artifact import load_generator
    from tlgan.latent.directions import directions as strongest
    from tlgan.latent.directions import edits
    from tlgan.latent.space import Space, of_class

    g = of_class(load_generator(model.path), name)
    found, gains = strongest(g, count, levels)
    with ctx.progress(f"drawing {counted(count, 'direction')}"):
        _save_sheet(edits(g, found, strength, steps, seed, levels), dest, rows=count)
    np.savez_compressed(vectors, directions=found.numpy(), gains=gains.numpy())
    facts: dict[str, Any] = {"path": str(dest.absolute()), "vectors": str(vectors.absolute()), "space": Space(g).name}
    about = {"levels": levels, "gains": gains.tolist(), "seed": seed, "ref": model.ref, "digest": model.digest}
    ctx.emit({**facts, **about}, f"{facts['path']}\n{facts['vectors']}")


def project(
    ctx: Context,
    ref: RefArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture; its middle is taken at the model's size.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="New folder; default: the image's name.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, max=100_000, help="Optimisation steps.")] = 300,
    seed: SeedOption = 0,
    name: ClassOption = None,
    perceptual: Annotated[
        str | None,
        typer.Option(
            "--perceptual",
            metavar="lpips:FOLDER",
            help="Nearest by LPIPS, whose weights are there; default: by pixels.",
        ),
    ] = None,
) -> None:
    """Find the latent (for stylegan2: the style) whose image is nearest to a given one.

    Writes latent.npz, projection.png (the image beside what was found) and progress.png into a folder.
    """
    model = find_model(ctx, ref)
    dest = (out or Path(f"{image.stem}-projected")).expanduser()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise Conflict(f"{dest} exists and is no empty folder", hint="choose another folder with --out")

    import torch

    from tlgan.artifact import load_generator
    from tlgan.data.image import decode
    from tlgan.data.source import BrokenImage
    from tlgan.latent.projection import distance, perceived
    from tlgan.latent.projection import project as search
    from tlgan.latent.space import of_class
    from tlgan.metrics.perceptual import Lpips

    kind, _, weights = (perceptual or "").partition(":")
    if perceptual and (kind != "lpips" or not weights):
        raise SpecError(f"--perceptual: expected lpips:FOLDER, received {perceptual}")
    between = perceived(Lpips(Path(weights).expanduser())) if perceptual else distance

    if not image.expanduser().is_file():
        raise NotFound(f"there is no image {image}")
    g = of_class(load_generator(model.path), name)
    try:
        pixels = decode(image.expanduser(), image.name, g.config["resolution"], g.config["channels"], enlarge=True)
    except BrokenImage as error:
        raise SpecError(f"{image} can't be read: {error.reason}") from None
    target = torch.from_numpy(pixels.copy())
    with ctx.progress(f"projecting {image.name}", total=steps) as advance:
        found = search(g, target, steps=steps, seed=seed, between=between, advance=advance)
    files = _save_projection(dest, target, found)
    facts: dict[str, Any] = {"path": str(dest.absolute()), "space": found.space, "steps": steps, "seed": seed}
    facts["distance_of"] = "lpips" if perceptual else "pixels"
    about = {"start": found.start, "distance": found.distances[-1], "ref": model.ref, "digest": model.digest}
    ctx.say(f"distance {found.start:.4f} at the start, {found.distances[-1]:.4f} at the end")
    ctx.emit({**facts, **about, "files": files}, facts["path"])


def _save_projection(dest: Path, target: Any, found: Projection) -> list[str]:
    import numpy as np
    import torch

    dest.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        dest / "latent.npz", code=found.code.numpy(), space=found.space, distances=np.array(found.distances)
    )
    _save_sheet(torch.stack([target, found.image]), dest / "projection.png", rows=1)
    _save_sheet(torch.stack([*found.stages, target]), dest / "progress.png", rows=1)
    return sorted(file.name for file in dest.iterdir())


def blend(
    ctx: Context,
    coarse: Annotated[str, typer.Argument(metavar="A", help="Gives the coarse blocks: name:alias or name@digest.")],
    fine: Annotated[str, typer.Argument(metavar="B", help="Gives the fine blocks: name:alias or name@digest.")],
    block: Annotated[
        str, typer.Option("--from", metavar="BLOCK", help="The first block of B (b16).", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the artifact; default: A-B.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", metavar="ALIAS", help="Alias to move besides latest. Repeatable.")
    ] = None,
) -> None:
    """Publish a generator with A's blocks before BLOCK and B's from there on; both are its parents.

    Shapes then come from A and textures from B, if both were fine-tuned from one model. The discriminator is B's.
    """
    from jobs.verbs.transfers import pull_shown
    from tlgan.artifact import load_network
    from tlgan.latent.blending import blend as mix
    from tlgan.latent.blending import relationship
    from tlgan.manifest import Parent
    from tlgan.naming import ArtifactRef, check_name

    names = [ArtifactRef.parse(ref).name for ref in (coarse, fine)]
    name = check_name(name or "-".join(names))
    aliases = list(dict.fromkeys(["latest", *(check_name(text, "alias") for text in alias or [])]))
    store = ctx.open_store()
    manifests = [store.resolve(ref) for ref in (coarse, fine)]
    for ref, manifest in zip((coarse, fine), manifests, strict=True):
        if manifest.kind != "gan":
            raise SpecError(f"{ref} is of kind {manifest.kind}; expected a generator, kind gan")
    paths = [pull_shown(ctx, store, manifest) for manifest in manifests]
    A, B = (load_network(path, "G_ema") for path in paths)
    G = mix(A, B, block)
    kinship = relationship(A, B)
    if kinship < STRANGERS:
        ctx.say(f"warning: the two are no relatives (cosine of their weights {kinship:.2f}): expect no sensible images")
    networks = {"G": G, "G_ema": G}
    if (paths[1] / "D").is_dir():
        networks["D"] = load_network(paths[1], "D")
    about = {"from": block, "coarse": manifests[0].ref, "fine": manifests[1].ref, "cosine": kinship}
    facts = {"resolution": G.config["resolution"], "channels": G.config["channels"], "blend": about}
    recipe = {k: v for k, v in (manifests[0].recipe or {}).items() if k in ("model", "loss")} or None
    roles = zip(("coarse", "fine"), manifests, strict=True)
    parents = [Parent(role=role, ref=manifest.ref, digest=manifest.digest) for role, manifest in roles]
    with tempfile.TemporaryDirectory(prefix="tlgan-blend-") as folder:
        _write_model(Path(folder), networks)
        made = store.push(
            name, Path(folder), kind="gan", parents=parents, recipe=recipe, facts=facts, aliases=tuple(aliases)
        )
    ctx.emit({"ref": made.ref, "digest": made.digest, "name": name, "aliases": aliases, **facts}, made.ref)


STRANGERS = 0.3


def _write_model(folder: Path, networks: dict[str, Any]) -> None:
    from tlgan.artifact import save_networks
    from tlgan.sampling import generate

    save_networks(folder, networks, type="gan")
    _save_sheet(generate(networks["G_ema"], 24), folder / "grid.png", rows=4, scale=1)


def _destination(out: str | None, model: Model, what: str) -> Path:
    dest = Path(out).expanduser() if out else Path(f"{model.stem}-{what}.png")
    check_destination(str(dest), "grid")
    return dest


def _save_sheet(images: Any, dest: Path, rows: int, scale: int | None = None) -> None:
    """A grid, written whole or not at all. Raises `BackendError`."""
    from jobs.images import beside
    from tlgan.grid import save_png, to_grid

    with beside(dest) as file:
        save_png(to_grid(images, rows=rows, scale=scale or max(1, SHOWN // max(images.shape[2:]))), file)
