"""Verbs about datasets: what there is, packing one into Parquet and publishing it, looking at a published one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import SetOption
from jobs.output import Context, counted, table
from tlgan import shapes
from tlgan.errors import NotFound, Problem, SpecError, TlganError, did_you_mean

if TYPE_CHECKING:
    from cluster.store import ArtifactStore
    from tlgan.manifest import Manifest
    from tlgan.recipe import DataSpec

RESOLUTION = 32  # px, when -s resolution=N is not given
KIND = "dataset"


def ls(ctx: Context) -> None:
    """List the built-in sources and the datasets published in the store."""
    sources = [_source_row(name) for name in _sources()]
    datasets = _published(ctx)
    ctx.emit({"sources": sources, "datasets": datasets}, lambda: _listing(sources, datasets))


def pack(
    ctx: Context,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A source (glyphs, torchvision:CIFAR10), a folder, or s3://... Parquet."),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the artifact.")],
    overrides: SetOption = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", metavar="ALIAS", help="Alias to move besides latest. Repeatable.")
    ] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="In a random order (of `seed`), as `data.sharded` needs.")
    ] = False,
) -> None:
    """Pack a dataset into Parquet shards and publish it; -s resolution=64 and other fields of `data:` decide what."""
    import tempfile

    from tlgan.data import cache_root, prepare, write_parquet
    from tlgan.naming import check_name

    check_name(name)
    spec = data_spec(source, overrides or [])
    store = ctx.open_store()
    if spec.resolution is None:
        ctx.say(f"packing at {RESOLUTION} px; -s resolution=N packs at another size")
    dataset = prepare(spec, resolution=RESOLUTION, shuffled=shuffle)
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="pack-") as folder:
        with ctx.progress(f"packing {counted(len(dataset), 'image')}"):
            facts = write_parquet(dataset, Path(folder, "shards")) | ({"shuffled": True} if shuffle else {})
        with ctx.progress(f"publishing {name}"):
            recipe = {"data": spec.model_dump(mode="json")}
            aliases = tuple(dict.fromkeys(["latest", *(alias or [])]))
            manifest = store.push(name, Path(folder, "shards"), kind=KIND, recipe=recipe, facts=facts, aliases=aliases)
        _store_statistics(store, dataset)
    shown = _published_row(manifest)
    ctx.emit(shown, f"{shown['ref']}  {_in_words(shown)}")


def _store_statistics(store: ArtifactStore, dataset: Any) -> None:
    """For `tlgan recommend`, if the store has the embedded extractor; otherwise they are made when they are asked for."""
    from cluster.statistics import at_publication
    from jobs.pin import EMBEDDED

    try:
        extractor = store.resolve(f"{EMBEDDED}:latest")
    except NotFound:
        return
    at_publication(store, "embedded", extractor.ref, dataset)


def show(
    ctx: Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:alias or name@digest.")],
    grid: Annotated[Path | None, typer.Option("--grid", metavar="FILE", help="Save a sheet of samples as PNG.")] = None,
) -> None:
    """Show what a published dataset holds."""
    store = ctx.open_store()
    manifest = store.resolve(ref)
    if manifest.kind != KIND:
        raise SpecError(f"{ref} is of kind {manifest.kind}, not a {KIND}", hint=f"tlgan artifact show {ref}")
    if grid is not None:
        ctx.say(f"samples: {_save_sheet(store, manifest, grid)}")
    data = {**manifest.facts, **_published_row(manifest), "created": manifest.created, "recipe": manifest.recipe}
    ctx.emit(data, lambda: _facts_page(data))


def data_spec(source: str, options: list[str]) -> DataSpec:
    """The `data:` section that a source (or a place) and `-s field=value` options mean.

    Raises `SpecError` with every mistake, `NotFound` for a path that is not there.
    """
    from pydantic import ValidationError

    from cluster.document import Document, Place
    from cluster.fields import shape_at
    from cluster.overrides import OPTION, typed
    from cluster.problems import problem_of
    from tlgan.recipe import DataSpec

    document = Document(_origin(source))
    problems: list[Problem] = []
    for text in options:
        key, equals, value = text.partition("=")
        field = key.strip().removeprefix("data.")
        place = Place(f"{OPTION} {text}", label=field)
        if not equals or not field:
            problems.append(Problem(f'expected field=value, received "{text}"', "", OPTION, hint="as in resolution=64"))
            continue
        parsed, problem = typed(value.strip(), shape_at(DataSpec, (field,)), place)
        problems += [problem] if problem else []
        document.set((field,), parsed, place)
    try:
        spec = DataSpec.model_validate(document.value)
    except ValidationError as error:
        problems += [problem_of(e, DataSpec, document, ()) for e in error.errors(include_url=False)]
    if problems:
        raise SpecError(problems)
    return spec


def _origin(source: str) -> dict[str, Any]:
    """`source` and `path` of a source's name, a folder, or a place with Parquet."""
    from tlgan.registry import SOURCES

    if source.partition(":")[0] in SOURCES:
        return {"source": source}
    if source.startswith("s3://") or source.endswith(".parquet"):
        return {"source": "parquet", "path": source}
    if Path(source).expanduser().is_dir():
        has_parquet = next(Path(source).expanduser().rglob("*.parquet"), None) is not None
        return {"source": "parquet" if has_parquet else "folder", "path": source}
    if "/" in source or source.startswith((".", "~")):
        raise NotFound(f"there is no folder {source}", hint="expected a source's name, a folder, or s3://bucket/prefix")
    hint = did_you_mean(source, SOURCES) or "a folder of images is a source too: write ./folder"
    raise SpecError(f'unknown data source "{source}"; expected one of: {", ".join(SOURCES)}', hint=hint)


def _sources() -> list[str]:
    from tlgan.registry import SOURCES

    return list(SOURCES)


def _source_row(name: str) -> dict[str, Any]:
    """Counts where the source is on every machine; what it needs where it is not."""
    from tlgan.data.source import open_source
    from tlgan.recipe import DataSpec
    from tlgan.registry import SOURCES

    facts = SOURCES.facts(name)
    row = {"source": name, "images": None, "channels": None, "labels": None, "needs": None}
    if facts.get("path"):
        return {**row, "needs": "path"}
    if facts.get("argument"):
        return {**row, "source": f"{name}:<Name>", "needs": "a dataset's name; path or download: true"}
    source = open_source(DataSpec(source=name))
    return {**row, "images": len(source), "channels": source.channels, "labels": len(source.label_names)}


def _published(ctx: Context) -> list[dict[str, Any]]:
    """The newest version of every published dataset. A store that can't be reached is said, and no error here."""
    try:
        store = ctx.open_store()
        newest = [versions[-1] for name in store.names() if (versions := store.versions(name))]
        manifests = [store.resolve(version.ref) for version in newest]
    except TlganError as error:
        ctx.say(f"published datasets can't be listed: {error.message}")
        return []
    return [_published_row(manifest) for manifest in manifests if manifest.kind == KIND]


def _published_row(manifest: Manifest) -> dict[str, Any]:
    names = ("count", "resolution", "channels", "digest", "shards")
    facts = {name: manifest.facts.get(name) for name in names}
    content = facts.pop("digest")
    return {"ref": manifest.ref, "digest": manifest.digest, **facts, "content": content, "bytes": manifest.size}


def _in_words(row: dict[str, Any]) -> str:
    size = f"{shapes.text(row['resolution'])}x{row['channels']}"
    shards = counted(row["shards"] or 0, "shard")
    return f"{counted(row['count'] or 0, 'image')} of {size} in {shards}, {(row['bytes'] or 0) / 1e6:.1f} MB"


def _listing(sources: list[dict[str, Any]], datasets: list[dict[str, Any]]) -> str:
    head = ["source", "images", "channels", "labels", "needs"]
    shown = table([["-" if row[k] is None else str(row[k]) for k in head] for row in sources], head)
    if datasets:
        shown += "\n\n" + table([[row["ref"], _in_words(row)] for row in datasets], ["dataset", "holds"])
    return shown


def _facts_page(data: dict[str, Any]) -> str:
    labels = data.get("labels") or {}
    lines = [
        ["artifact", data["ref"]],
        ["created", data["created"]],
        ["holds", _in_words(data)],
        ["content", str(data["content"])],
        ["order", "shuffled" if data.get("shuffled") else "as its source"],
        ["labels", ", ".join(f"{name} {count}" for name, count in labels.items()) or "none"],
        ["left out", str(len(data.get("skipped") or []))],
    ]
    return "\n".join(f"{name:9} {value}" for name, value in lines)


def _save_sheet(store: ArtifactStore, manifest: Manifest, path: Path) -> Path:
    """A sheet of up to 60 images chosen at random."""
    from tlgan.data import prepare
    from tlgan.grid import save_png, to_grid
    from tlgan.recipe import DataSpec

    spec = DataSpec(artifact=manifest.ref, limit=60)
    dataset = prepare(spec, resolution=manifest.facts["resolution"], artifact_path=store.pull(manifest))
    return save_png(to_grid(dataset.images, scale=max(1, 64 // shapes.longer(dataset.resolution))), path)
