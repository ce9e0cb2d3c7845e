"""How often `tlgan recommend` names the best starting point first, over all pairs of embedded data.

    python -m tests.bench.recommend [--quick] [--json] [--store URL]

Sources are glyphs of one script, handwritten digits and crops of one photograph, all grey at 32 px; each is pretrained
once. Targets are a hundred images each of these and of some rarer scripts. Every target is fine-tuned from every other
source with the same settings, for each seed (another hundred, another held-out half, other latents); the best source is
the one of the least mean KID against the held-out half. The recommendation sees what a person's would: the published
models and the hundred target images, never a fine-tuning. Against it stands a choice at random among the same models.
What was run before with the same library is taken from the store.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.bench.common import Result, Target, options, show
from tests.bench.pool import pool, run_all
from tests.bench.sets import PHOTOS, data_of, few, held_out, quiet

SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARABIC", "ARMENIAN", "CANADIAN", "GEORGIAN")
RARE = ("DIGIT", "HEBREW", "LAO")
SOURCES = (*(s.lower() for s in SCRIPTS), "digits", *PHOTOS)
TARGETS = (*SOURCES, *(s.lower() for s in RARE))


@dataclass(frozen=True)
class Setting:
    """One size of the experiment."""

    sources: tuple[str, ...] = SOURCES
    targets: tuple[str, ...] = TARGETS
    seeds: tuple[int, ...] = (0, 1)
    pretrain_kimg: float = 24.0
    kimg: float = 4.0
    images: int = 100
    width: int = 16
    samples: int = 1000
    features: str = "glyphs"
    classifier_kimg: float | None = None
    processes: int = 2


QUICK = Setting(sources=("latin", "digits", "flower"), targets=("greek", "digits"), seeds=(0,), pretrain_kimg=3, kimg=1)


def pretraining(source: str, setting: Setting) -> dict[str, Any]:
    model = {"width": setting.width, "latent_dim": 64, "resolution": 32}
    train = {"kimg": setting.pretrain_kimg, "batch_size": 32, "ema_kimg": 1.0}
    name = f"source-{source}"
    spec = {"kind": "pretrain", "name": name, "data": data_of(source), "model": model, "loss": {"r1": 0.5}}
    return {**spec, "train": train, "output": {"artifact": name}, **quiet(setting.pretrain_kimg)}


def finetuning(source: str, target: str, seed: int, setting: Setting) -> dict[str, Any]:
    name = f"{target}-from-{source}-{seed}"
    return {
        "kind": "finetune",
        "name": name,
        "init_from": {"artifact": f"source-{source}:latest"},
        "data": few(target, seed, setting.images),
        "transfer": {"method": "finetune"},
        "augment": {"name": "diffaugment", "policy": ["translation"]},
        "train": {"kimg": setting.kimg, "batch_size": 32, "ema_kimg": 1.0, "seed": seed},
        "metrics": ["kid"],
        "evaluation": {"samples": setting.samples, "data": held_out(target, seed), "seed": 1000 + seed},
        "output": {"artifact": name},
        **quiet(setting.kimg),
    }


def measure(quick: bool = False, store: str | None = None, setting: Setting | None = None) -> Result:
    from cluster.recommending import ORDERS
    from tlgan.data import cache_root

    setting = setting or (QUICK if quick else Setting())
    url = store or f"file://{cache_root() / 'bench' / 'recommend'}"
    classifier = {
        "kind": "classifier",
        "name": "glyph-features",
        "data": {**data_of(setting.features), "resolution": 32},
    }
    if setting.classifier_kimg:
        classifier["train"] = {"kimg": setting.classifier_kimg}
    pairs = [(s, t) for t in setting.targets for s in setting.sources if s != t]
    with pool(setting.processes, url) as workers:
        run_all(workers, [classifier], "extractor")
        run_all(workers, [pretraining(source, setting) for source in setting.sources], "pretrained")
        tuning = [finetuning(s, t, seed, setting) for seed in setting.seeds for s, t in pairs]
        tuned = run_all(workers, tuning, "fine-tuned")
    mean = {(s, t): statistics.mean(tuned[f"{t}-from-{s}-{seed}"]["kid"] for seed in setting.seeds) for s, t in pairs}
    chosen = {by: _choices(url, setting, by) for by in ORDERS}
    return _result(quick, setting, mean, chosen)


def _choices(url: str, setting: Setting, by: str) -> dict[tuple[str, int], list[str]]:
    """(target, seed) -> sources in the recommended order."""
    from cluster.inputs import dataset_of
    from cluster.past import manifests
    from cluster.recommending import rank, startable
    from cluster.store import ArtifactStore, open_store
    from tlgan.metrics.extractors import open_extractor
    from tlgan.recipe import DataSpec

    artifacts = ArtifactStore(open_store(url))
    classifier = artifacts.resolve("glyph-features:latest")
    extractor = open_extractor("embedded", artifact_path=artifacts.pull(classifier), artifact_ref=classifier.ref)
    models = [m for m in startable(artifacts, manifests(artifacts)) if m.name.startswith("source-")]
    found = {}
    for target in setting.targets:
        allowed = [m for m in models if m.name.removeprefix("source-") in set(setting.sources) - {target}]
        for seed in setting.seeds:
            spec = DataSpec.model_validate(few(target, seed, setting.images))
            ranked = rank(artifacts, allowed, lambda size, s=spec: dataset_of(s, size, artifacts), extractor, by)
            found[target, seed] = [start.ref.partition("@")[0].removeprefix("source-") for start in ranked]
    return found


def _result(
    quick: bool,
    setting: Setting,
    mean: dict[tuple[str, str], float],
    chosen: dict[str, dict[tuple[str, int], list[str]]],
) -> Result:
    from cluster.recommending import DEFAULT

    rows = []
    for target in setting.targets:
        own = {s: value for (s, t), value in mean.items() if t == target}
        best = min(own, key=own.__getitem__)
        first = chosen[DEFAULT][target, setting.seeds[0]][0]
        row = {"target": target, "sources": len(own), "best": best, "first choice": first, "KID of best": own[best]}
        rows.append({**row, "KID of first choice": own[first], "KID of random": statistics.mean(own.values())})
    scores = {by: score(mean, choices) for by, choices in chosen.items()}
    ours = scores[DEFAULT]
    targets = [
        Target("recommend: first choice is the best, times a random choice", ">=", 2.0, ours["first"] / ours["random"]),
        Target("recommend: excess KID of the first choice, of a random one's", "<=", 0.5, ours["excess"]),
    ]
    notes = ["", f"over {len(mean)} pairs, {len(setting.seeds)} seeds, {setting.kimg:g} kimg each:"]
    for by, values in scores.items():
        mark = " (in use)" if by == DEFAULT else ""
        notes.append(
            f"  {by}{mark}: first choice best {values['first']:.0%}, among the first three {values['three']:.0%}, "
            f"random {values['random']:.0%}; excess KID {values['excess']:.2f} of a random choice's; "
            f"rank correlation with KID {values['rho']:.2f}"
        )
    return Result("recommend", quick, rows, targets, notes)


def score(mean: dict[tuple[str, str], float], choices: dict[tuple[str, int], list[str]]) -> dict[str, float]:
    """Shares over (target, seed): the first choice is best; the best is among three; and what chance would give."""
    found: dict[str, list[float]] = {name: [] for name in ("first", "three", "random", "rho", "regret", "chance")}
    for (target, _), order in choices.items():
        own = {s: value for (s, t), value in mean.items() if t == target}
        best = min(own, key=own.__getitem__)
        found["first"].append(order[0] == best)
        found["three"].append(best in order[:3])
        found["random"].append(1 / len(own))
        found["rho"].append(spearman([order.index(s) for s in own], list(own.values())))
        found["regret"].append(own[order[0]] - own[best])
        found["chance"].append(statistics.mean(own.values()) - own[best])
    averages = {name: statistics.mean(values) for name, values in found.items()}
    return {**averages, "excess": averages["regret"] / max(averages["chance"], 1e-12)}


def spearman(a: Iterable[float], b: Iterable[float]) -> float:
    """Correlation of the ranks; ties are broken by position."""
    x, y = ([sorted(values).index(v) for v in values] for values in (list(a), list(b)))
    return statistics.correlation(x, y) if len(x) > 1 else 1.0


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--store", help="store to work in; default: a folder of the cache, kept between runs")
    given = parser.parse_args()
    sys.exit(show(measure(given.quick, given.store), given.json))
