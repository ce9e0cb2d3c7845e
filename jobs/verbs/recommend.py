"""`tlgan recommend`: which published model to start from for a dataset, how to fine-tune it, and what was tried before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import SetOption
from jobs.output import Context, table
from tlgan import shapes
from tlgan.errors import Conflict, NotFound, SpecError, did_you_mean

if TYPE_CHECKING:
    from cluster.recommending import Advice, Start
    from tlgan.recipe import DataSpec

RESOLUTION = 32  # px at which the data are compared with past targets when no model says another


def recommend(
    ctx: Context,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A folder, a source (digits), Parquet, or a dataset artifact name:alias."),
    ],
    overrides: SetOption = None,
    by: Annotated[str, typer.Option("--by", metavar="fit|divergence|frechet", help="What decides the order.")] = "fit",
    extractor: Annotated[
        str, typer.Option("--extractor", metavar="NAME", help="embedded, classifier:<name:alias> or inception.")
    ] = "embedded",
    metric: Annotated[str, typer.Option("--metric", metavar="NAME", help="Metric of the transfer matrix.")] = "kid",
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write a spec of the first choice, to run.")
    ] = None,
) -> None:
    """Rank the store's models as starting points for DATA, and say how to fine-tune the first.

    A model comes first when the images it draws cover the data's and are like its own training images, in features of one
    extractor. Method and freeze depths come from
    past runs in the store, if some compare several. The transfer matrix shows the best result of every source on every target.
    """
    check_options(by, metric, extractor, write)
    spec = spec_of(data, overrides or [])
    from cluster.past import manifests, matrix, results
    from cluster.recommending import rank, startable

    artifacts = ctx.open_store()
    published = manifests(artifacts)
    candidates = startable(artifacts, published)
    if not candidates:
        raise NotFound(
            f"no model to start from is published in {artifacts.url}",
            hint="tlgan run pretrain.yaml makes one; tlgan import takes over others' networks",
        )
    spec, dataset_at, features = opened(ctx, spec, extractor)
    with ctx.progress(f"comparing {len(candidates)} models with {data}"):
        starts = rank(artifacts, candidates, dataset_at, features, by, ctx.detail)
    if starts[0].distance is None:
        raise SpecError(f"no model can be compared with {data}: {starts[0].problem}")
    found = results(artifacts, published)
    models = {manifest.digest: (manifest.recipe or {})["model"] for manifest in candidates}
    advice = advised(artifacts, found, starts[0], models, dataset_at, features)
    rows = matrix(found, metric)
    name = f"from-{starts[0].ref.partition('@')[0]}"
    from cluster.recommending import finetune_spec

    written = finetune_spec(name, starts[0].ref, spec, advice.settings)
    if write is not None:
        write_spec(write, written, advice)
    shown = {"by": by, "extractor": features.name, "ranked": starts, "advice": advice, "matrix": rows, "spec": written}
    path = {"path": str(write.absolute())} if write else {}
    ctx.emit({**_plain(shown), **path}, lambda: page(starts, advice, rows, by, metric, write))


def check_options(by: str, metric: str, extractor: str, write: Path | None) -> None:
    """Raises `SpecError` or `Conflict` before any work."""
    from pydantic import ValidationError

    from cluster.recommending import ORDERS
    from tlgan.recipe import EvaluationSpec
    from tlgan.registry import METRICS

    if by not in ORDERS:
        expected = f'unknown order "{by}"; expected one of: {", ".join(ORDERS)}'
        raise SpecError(expected, hint=did_you_mean(by, ORDERS))
    METRICS.check(metric)
    try:
        EvaluationSpec(extractor=extractor)
    except ValidationError as error:
        raise SpecError(f'--extractor "{extractor}": {error.errors()[0]["msg"]}') from None
    if write is not None and write.exists():
        raise Conflict(f"{write} exists; nothing was written", hint="choose another file")


def spec_of(data: str, options: list[str]) -> DataSpec:
    """The `data:` section that DATA and `-s` options mean; a dataset artifact by its reference too."""
    from jobs.verbs.data import data_spec
    from tlgan.naming import ArtifactRef
    from tlgan.recipe import DataSpec
    from tlgan.registry import SOURCES

    head = data.partition(":")[0]
    is_reference = (":" in data or "@" in data) and "/" not in data and head not in SOURCES
    if not is_reference:
        return data_spec(data, options)
    ArtifactRef.parse(data)
    if options:
        raise SpecError("-s goes with a source or a folder; a dataset artifact is compared as it is")
    return DataSpec(artifact=data)


def opened(ctx: Context, spec: DataSpec, extractor: str) -> tuple[DataSpec, Any, Any]:
    """The spec with its artifact pinned, a function that prepares it at a resolution, and the extractor."""
    from cluster.inputs import dataset_of
    from jobs.pin import pin_artifact, pin_extractor
    from jobs.session import Session
    from tlgan.metrics.extractors import open_extractor

    artifacts = ctx.open_store()
    with Session(artifacts) as session:
        if spec.artifact is not None:
            manifest, _ = pin_artifact(session, spec.artifact, "DATA", "dataset")
            spec = spec.model_copy(update={"artifact": manifest.ref})
        with ctx.progress(f"opening the extractor {extractor} (the embedded one is trained once a store)"):
            pinned, classifier = pin_extractor(session, extractor)
    path = artifacts.pull(classifier.ref) if classifier else None
    features = open_extractor(pinned, artifact_path=path, artifact_ref=classifier.ref if classifier else None)
    return spec, lambda resolution: dataset_of(spec, resolution, artifacts), features


def advised(
    artifacts: Any, found: list[Any], first: Start, models: dict[str, Any], dataset_at: Any, features: Any
) -> Advice:
    """How to fine-tune the first choice on the data."""
    from dataclasses import replace

    from cluster.recommending import advise, fitted
    from cluster.statistics import of_dataset
    from tlgan.recipe import ModelSpec

    dataset = dataset_at(first.resolution)
    target = of_dataset(artifacts.store, dataset, features)
    advice = advise(artifacts, found, target, features, len(dataset))
    return replace(advice, settings=fitted(advice, ModelSpec.model_validate(models[first.digest])))


def write_spec(file: Path, spec: dict[str, Any], advice: Advice) -> None:
    """A YAML spec with the reason for its values at the top. Raises `Conflict`, `BackendError`."""
    import yaml

    from tlgan.errors import BackendError

    text = f"# {advice.basis}\n" + yaml.safe_dump(spec, sort_keys=False)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise Conflict(f"{file} exists; nothing was written", hint="choose another file") from None
    except OSError as error:
        raise BackendError(f"can't write {file}: {error.strerror or error}") from None


def page(
    starts: list[Start], advice: Advice, rows: list[dict[str, Any]], by: str, metric: str, write: Path | None
) -> str:
    """What a person reads."""
    body = [
        [
            *(str(number), s.ref, s.made, f"{s.arch} {shapes.text(s.resolution)}"),
            *(_number(value) for value in (s.distance, s.distances.get("divergence"), s.misfit)),
            s.problem or "",
        ]
        for number, s in enumerate(starts, 1)
    ]
    parts = [table(body, ["", "start from", "made", "network", by, "divergence", "misfit", "problem"])]
    settings = ", ".join(f"{name}={value}" for name, value in advice.settings.items())
    parts.append(f"how        {settings}\nbecause    {advice.basis}")
    if rows:
        parts.append(f"transfer matrix: best {metric} of each source on each target (* the best of a column)")
        parts.append(matrix_table(rows))
    else:
        parts.append(f"transfer matrix: no training in this store was measured by {metric}")
    if write is not None:
        parts.append(f"spec       {write.absolute()}")
    return "\n\n".join(parts)


def matrix_table(rows: list[dict[str, Any]]) -> str:
    """Sources down, targets across. Results under unlike protocols stand in columns of their own."""
    columns = list(dict.fromkeys((row["target"], row["content"], row["contest"]) for row in rows))
    names = [target for target, _, _ in columns]
    heads = [f"{n} [{c[2][:4]}]" if names.count(n) > 1 else n for n, c in zip(names, columns, strict=True)]
    cells = {(row["source"], row["target"], row["content"], row["contest"]): row for row in rows}
    lines = []
    for source in dict.fromkeys(row["source"] for row in rows):
        found = [cells.get((source, *column)) for column in columns]
        lines.append([source, *(f"{_number(c['value'])}{'*' if c['best'] else ''}" if c else "-" for c in found)])
    return table(lines, ["source", *heads])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _plain(shown: dict[str, Any]) -> dict[str, Any]:
    return {**shown, "ranked": [start.to_json() for start in shown["ranked"]], "advice": shown["advice"].to_json()}
