"""Which transfer method suits which source and target? Every method against training from scratch and against a search.

    python -m tests.bench.methods [--quick] [--json] [--store URL] [--targets digits,hebrew,temple] [--page FILE]

Sources are the Latin letters and crops of one photograph, targets a hundred handwritten digits, Hebrew letters and crops of
another photograph, all grey at 32 px. All see the same number of images, and KID and recall are taken from the same number of
samples against the held-out half of the target's set. A seed takes another hundred, another half and other latents.

- scratch      the fine-tuning's data, augmentation, optimisers and budget, new networks
- the methods  of `jobs/specs/sweep-methods.yaml`, each at its defaults
- swept        the best trial of a search over methods, learning rates and batch size, from the source whose plain fine-tuning
               went better; chosen by KID of other samples, and measured again as the others are

What was run before with the same library is taken from the store. `--page` writes the results as Markdown.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.bench.common import Result, Target, options, show
from tests.bench.pool import pool, run_all, run_here
from tests.bench.sets import data_of, few, held_out, quiet

SCRATCH, PLAIN, SWEPT = "scratch", "finetune", "swept"
METRICS = ("kid", "recall")
Way = dict[str, Any]  # a `transfer:` section


@dataclass(frozen=True)
class Setting:
    """One size of the experiment. `trials` 0: no search."""

    sources: tuple[str, ...] = ("latin", "flower")
    targets: tuple[str, ...] = ("digits", "hebrew", "temple")
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] | None = None  # as `name_of` gives them; None: all
    pretrain_kimg: float = 64.0
    kimg: float = 8.0
    images: int = 100
    width: int = 24
    samples: int = 1000
    trials: int = 10
    features: str = "glyphs"
    classifier_kimg: float | None = None
    processes: int = 2


QUICK = Setting(
    sources=("latin",),
    targets=("digits",),
    seeds=(0,),
    methods=("finetune", "singular_values"),
    pretrain_kimg=3.2,
    kimg=1.6,
    trials=2,
    samples=500,
)


@dataclass(frozen=True)
class Cell:
    """One way to a generator of `target`, its KID and recall for each seed. `source`: "" from scratch."""

    target: str
    source: str
    method: str
    kid: tuple[float, ...]
    recall: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.kid)


def ways(setting: Setting) -> dict[str, Way]:
    """The methods to compare, by their names; plain fine-tuning is among them."""
    from cluster.specfile import load_spec

    spec: Any = load_spec(str(files("jobs") / "specs" / "sweep-methods.yaml"))
    found = {name_of(way): way for way in spec.space["transfer"].values}
    return {name: way for name, way in found.items() if setting.methods is None or name in setting.methods}


def name_of(way: Way) -> str:
    """`freeze (freeze_d 1)` of `{method: freeze, freeze_d: 1}`."""
    settings = ", ".join(f"{key} {value}" for key, value in way.items() if key != "method")
    return f"{way['method']} ({settings})" if settings else str(way["method"])


def _base(name: str, kind: str, kimg: float) -> dict[str, Any]:
    return {"kind": kind, "name": name, "output": {"artifact": name}, **quiet(kimg)}


def _model(setting: Setting) -> dict[str, Any]:
    return {"width": setting.width, "latent_dim": 64, "resolution": 32}


def pretraining(source: str, setting: Setting) -> dict[str, Any]:
    train = {"kimg": setting.pretrain_kimg, "batch_size": 32, "ema_kimg": 1.0}
    head = _base(f"source-{source}", "pretrain", setting.pretrain_kimg)
    return {**head, "data": data_of(source), "model": _model(setting), "train": train}


def _small(target: str, seed: int, setting: Setting) -> dict[str, Any]:
    """What scratch and fine-tuning have in common."""
    return {
        "data": few(target, seed, setting.images),
        "augment": {"name": "diffaugment", "policy": ["translation"]},
        "train": {"kimg": setting.kimg, "batch_size": 32, "ema_kimg": 1.0, "seed": seed},
        "metrics": list(METRICS),
        "evaluation": {"samples": setting.samples, "data": held_out(target, seed), "seed": 1000 + seed},
    }


def scratch(target: str, seed: int, setting: Setting) -> dict[str, Any]:
    head = _base(f"{target}-{SCRATCH}-{seed}", "pretrain", setting.kimg)
    return {**head, "model": _model(setting), **_small(target, seed, setting)}


def finetuning(source: str, target: str, name: str, way: Way, seed: int, setting: Setting) -> dict[str, Any]:
    head = _base(f"{target}-from-{source}-{_slug(name)}-{seed}", "finetune", setting.kimg)
    start = {"init_from": {"artifact": f"source-{source}:latest"}, "transfer": way}
    return {**head, **start, **_small(target, seed, setting)}


def sweep(source: str, target: str, seed: int, setting: Setting) -> dict[str, Any]:
    base = finetuning(source, target, PLAIN, {"method": "finetune"}, seed, setting)
    del base["output"]
    base["evaluation"] = {**base["evaluation"], "seed": seed}
    base["metrics"] = ["kid"]
    name = f"{target}-{SWEPT}-{seed}"
    methods: list[Way] = [
        {"method": "finetune"},
        {"method": "freeze", "freeze_d": 1},
        {"method": "l2_sp"},
        {"method": "scale_shift"},
        {"method": "feature_distillation"},
    ]
    return {
        "kind": "sweep",
        "name": name,
        "base": base,
        "space": {
            "transfer": {"choice": methods},
            "train.batch_size": {"choice": [16, 32]},
            "train.lr_g": {"log_uniform": [1e-4, 1e-3]},
            "train.lr_d": {"log_uniform": [1e-4, 1e-3]},
        },
        "search": {"algo": "random", "trials": setting.trials, "parallel": 2, "seed": seed},
        "early_stop": {"scheduler": "asha", "grace_kimg": setting.kimg / 4, "eta": 2},
        "finalists": 2,
        "output": {"artifact": name},
    }


def evaluation(target: str, seed: int, setting: Setting) -> dict[str, Any]:
    """Of a search's best network, as the others were measured."""
    return {
        "kind": "evaluate",
        "name": f"{target}-{SWEPT}-{seed}-again",
        "target": {"artifact": f"{target}-{SWEPT}-{seed}:latest"},
        "data": held_out(target, seed),
        "metrics": list(METRICS),
        "samples": setting.samples,
        "seed": 1000 + seed,
    }


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").replace("--", "-")


def measure(quick: bool = False, store: str | None = None, setting: Setting | None = None) -> tuple[Result, list[Cell]]:
    from tlgan.data import cache_root

    setting = setting or (QUICK if quick else Setting())
    url = store or f"file://{cache_root() / 'bench' / 'methods'}"
    cells = _trained(url, setting)
    if setting.trials:
        cells += _searched(url, setting, cells)
    cells.sort(key=lambda cell: (setting.targets.index(cell.target), cell.mean))
    targets = [target for name in setting.targets for target in _targets(name, cells)] if setting.trials else []
    rows = [_row(cell, _of(cells, cell.target, SCRATCH).mean) for cell in cells]
    notes = ["", f"{setting.kimg:g} kimg each, {setting.images} images, {len(setting.seeds)} seeds"]
    return Result("methods", quick, rows, targets, notes), cells


def _trained(url: str, setting: Setting) -> list[Cell]:
    """Scratch and every method at its defaults."""
    data = {**data_of(setting.features), "resolution": 32}
    classifier: dict[str, Any] = {"kind": "classifier", "name": "glyph-features", "data": data}
    if setting.classifier_kimg:
        classifier["train"] = {"kimg": setting.classifier_kimg}
    methods, seeds = ways(setting), setting.seeds
    specs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for target in setting.targets:
        specs[target, "", SCRATCH] = [scratch(target, seed, setting) for seed in seeds]
        for source in setting.sources:
            for name, way in methods.items():
                specs[target, source, name] = [finetuning(source, target, name, way, s, setting) for s in seeds]
    with pool(setting.processes, url) as workers:
        run_all(workers, [classifier], "extractor")
        run_all(workers, [pretraining(source, setting) for source in setting.sources], "pretrained")
        found = run_all(workers, [spec for group in specs.values() for spec in group], "trained")
    return [_cell(*where, [found[spec["name"]] for spec in group]) for where, group in specs.items()]


def _searched(url: str, setting: Setting, cells: list[Cell]) -> list[Cell]:
    """One after another: the trials of a search share the machine."""
    specs, best = [], {}
    for target in setting.targets:
        plain = [cell for cell in cells if (cell.target, cell.method) == (target, PLAIN)]
        best[target] = min(plain, key=lambda cell: cell.mean).source
        for seed in setting.seeds:
            specs += [sweep(best[target], target, seed, setting), evaluation(target, seed, setting)]
    found = run_here(url, specs, "searched")
    names = {target: [f"{target}-{SWEPT}-{seed}-again" for seed in setting.seeds] for target in setting.targets}
    return [_cell(t, best[t], SWEPT, [found[name] for name in names[t]]) for t in setting.targets]


def _cell(target: str, source: str, method: str, found: list[dict[str, float]]) -> Cell:
    kid, recall = (tuple(one[metric] for one in found) for metric in METRICS)
    return Cell(target, source, method, kid, recall)


def _of(cells: list[Cell], target: str, method: str) -> Cell:
    """The best cell of that target and method."""
    return min((c for c in cells if (c.target, c.method) == (target, method)), key=lambda cell: cell.mean)


def _targets(target: str, cells: list[Cell]) -> list[Target]:
    swept = _of(cells, target, SWEPT).mean
    against = {"scratch": _of(cells, target, SCRATCH).mean, "plain fine-tuning": _of(cells, target, PLAIN).mean}
    return [Target(f"methods: {target}, KID swept against {what}", "<", 1, swept / k) for what, k in against.items()]


def _row(cell: Cell, of: float) -> dict[str, Any]:
    many = len(cell.kid) > 1
    return {
        "target": cell.target,
        "method": cell.method,
        "source": cell.source or "-",
        "KID": cell.mean,
        "std": statistics.stdev(cell.kid) if many else None,
        "recall": statistics.mean(cell.recall),
        "recall std": statistics.stdev(cell.recall) if many else None,
        "KID of scratch": cell.mean / of,
    }


if __name__ == "__main__":
    from tests.bench.methods_page import page

    parser = options(__doc__)
    parser.add_argument("--store", help="store to work in; default: a folder of the cache, kept between runs")
    parser.add_argument("--page", type=Path, help="write the results there, as Markdown")
    parser.add_argument("--targets", help=f"some of {','.join(Setting.targets)}")
    given = parser.parse_args()
    size = QUICK if given.quick else Setting()
    if given.targets:
        size = replace(size, targets=tuple(given.targets.split(",")))
    result, cells = measure(given.quick, given.store, size)
    if given.page:
        given.page.write_text(page(result, cells), encoding="utf-8")
    sys.exit(show(result, given.json))
