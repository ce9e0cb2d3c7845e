"""The verb `import`: networks that others trained become an artifact."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import Context, table
from tlgan.errors import SpecError

if TYPE_CHECKING:
    from tlgan.models.blocks import Network


def import_networks(
    ctx: Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A .pkl of StyleGAN2-ADA or StyleGAN3, or a .pt.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the artifact.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="TEXT", help="Under which licence it stands.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", metavar="ALIAS", help="Alias to move besides latest. Repeatable.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show public networks that people start from.")] = False,
) -> None:
    """Publish trained StyleGAN2 networks from other programs' files; nothing in a file is executed."""
    from tlgan.importing import KNOWN, read_networks, recipe_for
    from tlgan.naming import check_name

    if listed:
        rows = [[known.file, str(known.resolution), known.about, known.page] for known in KNOWN]
        ctx.emit([vars(known) for known in KNOWN], table(rows, ["file", "px", "what", "where"]))
        return
    if file is None or name is None:
        raise SpecError("FILE and NAME are missing", hint="tlgan import FILE NAME, or tlgan import --list")
    aliases = tuple(dict.fromkeys(["latest", *(check_name(text, "alias") for text in alias or [])]))
    check_name(name)
    networks, origin = read_networks(file.expanduser())
    if "D" not in networks:
        ctx.say(
            "warning: the file has no discriminator: its images can be drawn, but nothing can be fine-tuned from it"
        )
    G = networks["G_ema"]
    coverage = {which: len(network.state_dict()) for which, network in networks.items()}
    facts = {"resolution": G.config["resolution"], "channels": G.config["channels"], "imported": coverage}
    if G.classes:
        facts["classes"] = len(G.classes)
    facts["origin"] = origin.to_json(licence)
    with tempfile.TemporaryDirectory(prefix="tlgan-import-") as folder:
        _write(networks, Path(folder))
        manifest = ctx.open_store().push(
            name, Path(folder), kind="gan", recipe=recipe_for(G), facts=facts, aliases=aliases
        )
    told = ", ".join(f"{count} tensors of {which}" for which, count in coverage.items())
    ctx.say(f"took over {told}; licence: {facts['origin']['licence']}")
    ctx.emit({"ref": manifest.ref, "digest": manifest.digest, "name": name, **facts}, manifest.ref)


def _write(networks: dict[str, Network], folder: Path) -> None:
    """The networks and a sheet of 24 images."""
    from tlgan.artifact import save_networks
    from tlgan.grid import png_bytes, to_grid
    from tlgan.sampling import generate

    save_networks(folder, networks, type="gan")
    images: Any = generate(networks["G_ema"], 24, truncation=0.7)
    (folder / "grid.png").write_bytes(png_bytes(to_grid(images, 4, 6)))
