"""What was transferred before in a store: every measured fine-tuning, from published manifests, evaluations and sweeps.

Only results under one protocol (reference, extractor, counts, estimator) are held against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.runs import RunRecord, Runs
from cluster.store import ArtifactStore
from cluster.store.catalog import load
from cluster.store.transfer import in_parallel
from tlgan.canonical import digest_of
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import Manifest, Parent
from tlgan.metrics.protocol import MetricValue, unlike_fields
from tlgan.registry import METRICS

SCRATCH = "(scratch)"
FREEZING = ("method", "freeze_d", "freeze_g")


@dataclass(frozen=True)
class PastResult:
    """One metric of one training that started from `source` (None: from scratch) and was shown `target`.

    `target` is the content digest of the training images, `target_name` what a person calls them. `settings` are the
    transfer section and the optimisers; `contest` tells results apart that can't be compared.
    """

    source: str | None
    source_name: str
    target: str
    target_name: str
    metric: str
    value: float
    contest: str
    settings: dict[str, Any] = field(default_factory=dict)
    ref: str | None = None
    run: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def better_is_lower(self) -> bool:
        return METRICS.facts(self.metric)["mode"] == "min" if self.metric in METRICS else True


def manifests(artifacts: ArtifactStore) -> list[Manifest]:
    """Every published version that can be read, by name and age."""

    def read(version: Any) -> Manifest | None:
        try:
            return load(artifacts.store, version.key, version.digest)
        except (IntegrityError, NotFound):
            return None

    versions = [version for name in artifacts.names() for version in artifacts.versions(name)]
    return [manifest for manifest in in_parallel(read, versions, artifacts.threads) if manifest]


def results(artifacts: ArtifactStore, published: Iterable[Manifest]) -> list[PastResult]:
    """All measured trainings: of artifacts as they were published, of `evaluate` runs on them, and of sweeps' trials."""
    gans = {manifest.digest: manifest for manifest in published if manifest.kind == "gan" and manifest.recipe}
    found = [result for manifest in gans.values() for result in _of_manifest(manifest, manifest.metrics)]
    runs = Runs(artifacts.store)
    for record in runs.list():
        if record.kind == "evaluate" and (target := gans.get(record.inputs.get("target", {}).get("digest", ""))):
            found += [result for row in runs.metrics(record.id) for result in _of_manifest(target, [row], record.id)]
        if record.kind == "sweep":
            found += _of_sweep(runs, record)
    return found


def _of_manifest(manifest: Manifest, metrics: Iterable[dict[str, Any]], run: str | None = None) -> Iterator[PastResult]:
    source, data = (_parent(manifest.parents, role) for role in ("init_from", "data"))
    if data is None:
        return
    for row in metrics:
        if row.get("value") is None:
            continue
        value = MetricValue.from_json(row)
        yield PastResult(
            source=source.digest if source else None,
            source_name=source.ref.partition("@")[0] if source else SCRATCH,
            target=str(manifest.facts.get("data", {}).get("digest") or data.digest),
            target_name=data.ref,
            metric=value.name,
            value=value.value,
            contest=contest_of(value),
            settings=settings_of(manifest.recipe or {}),
            ref=manifest.ref,
            run=run or manifest.facts.get("run"),
        )


def _of_sweep(runs: Runs, record: RunRecord) -> Iterator[PastResult]:
    """Trials of one sweep are a contest of their own: they were measured with fewer samples than its winner was."""
    source, data = record.inputs.get("init_from"), record.inputs.get("data")
    objective = record.spec.get("objective", {})
    if data is None:
        return
    for row in runs.get_json(record.id, "leaderboard.json") or []:
        if row.get("objective") is None or row.get("state") == "failed":
            continue
        base = record.spec.get("base", {})
        written = {section: dict(base.get(section) or {}) for section in ("transfer", "train", "augment", "loss")}
        for path, value in row.get("params", {}).items():
            section, _, name = path.partition(".")
            if section in written:
                written[section][name] = value
        yield PastResult(
            source=source["digest"] if source else None,
            source_name=source["ref"].partition("@")[0] if source else SCRATCH,
            target=str(record.facts.get("data", {}).get("digest") or data["digest"]),
            target_name=data["ref"],
            metric=str(objective.get("metric", "kid")),
            value=float(row["objective"]),
            contest=f"sweep {record.id}",
            settings=settings_of(written),
            run=f"{record.id}/trials/{row['trial']}",
        )


def _parent(parents: Iterable[Parent], role: str) -> Parent | None:
    return next((parent for parent in parents if parent.role == role), None)


def contest_of(value: MetricValue) -> str:
    """Equal for values that may be compared: the digest of everything in the protocol that must agree."""
    free = {key for key in value.protocol if not unlike_fields(value, _without(value, key))}
    return digest_of({"name": value.name, **{k: v for k, v in value.protocol.items() if k not in free}})[:16]


def _without(value: MetricValue, key: str) -> MetricValue:
    return MetricValue(value.name, value.value, {k: v for k, v in value.protocol.items() if k != key})


def settings_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """Transfer, augmentation and optimisers of a recipe, with the names of a spec: `transfer.method`, `train.lr_g`, ..."""
    wanted = {
        "transfer": None,  # all of it
        "augment": ("name", "policy"),
        "train": ("kimg", "batch_size", "lr_g", "lr_d"),
        "loss": ("r1",),
    }
    found = {}
    for section, names in wanted.items():
        for name, value in (recipe.get(section) or {}).items():
            if (names is None or name in names) and value is not None:
                found[f"{section}.{name}"] = value
    return found


def matrix(found: Iterable[PastResult], metric: str) -> list[dict[str, Any]]:
    """The transfer matrix: for each source and target the best result by `metric`, in each contest on its own.

    Rows of {source, target, contest, value, runs, settings, ref, best}; `best`: no source did better in that contest.
    """
    cells: dict[tuple[str, str, str], list[PastResult]] = {}
    for one in found:
        if one.metric == metric and not one.contest.startswith("sweep "):
            cells.setdefault((one.source_name, one.target, one.contest), []).append(one)
    rows = []
    for (source, target, contest), group in cells.items():
        best = _best(group)
        about = {"source": source, "target": best.target_name, "content": target, "contest": contest}
        rows.append({**about, "value": best.value, "runs": len(group), "settings": best.settings, "ref": best.ref})
    for row in rows:
        rivals = [other for other in rows if (other["content"], other["contest"]) == (row["content"], row["contest"])]
        row["best"] = row is _extreme(rivals, metric)
    return sorted(rows, key=lambda row: (row["target"], row["contest"], row["source"]))


def _best(group: list[PastResult]) -> PastResult:
    choose = min if group[0].better_is_lower else max
    return choose(group, key=lambda one: one.value)


def _extreme(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    lower = METRICS.facts(metric)["mode"] == "min" if metric in METRICS else True
    return (min if lower else max)(rows, key=lambda row: row["value"])
