"""Transfer pays: a hundred digits, equal images seen; from scratch, fine-tuned from glyphs, and with a searched fine-tuning.

    python -m tests.bench.transfer [--quick] [--json] [--store URL]

The jobs are the shipped specs (`jobs/specs`) with their budgets: what is measured is what a person runs.

- scratch      the fine-tuning's data, augmentation, optimisers and budget, new networks
- fine-tuned   from the glyph networks, every weight trained, the spec's learning rates
- swept        the best trial of `sweep.yaml`, chosen by KID of fewer samples; no trial sees more images than the others

A seed changes everything at once: which half of the digits is held out, which hundred of the others are the target, first
weights, order, latents and the points that the search tries. KID is taken by an `evaluate` job the same way for all: the
held-out half as reference, features of the glyph classifier, the networks as they are at the end of training (swept: at
the best of its measurements).
The search looks at the same held-out digits through other samples, as a person would who has no third set.
The glyph networks are trained once; with a store that is kept (`--store`), what was run before is not run again.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tests.bench.common import Result, Target, options, show

TARGET = 0.5
SCRATCH, FINETUNED, SWEPT = "scratch", "fine-tuned", "swept"
SPECS = files("jobs") / "specs"


@dataclass(frozen=True)
class Setting:
    """One size of the experiment; None: as the shipped spec says."""

    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 2000
    pretrain_kimg: float | None = None
    kimg: float | None = None
    trials: int | None = None
    width: int | None = None
    classifier_kimg: float | None = None
    glyphs: int | None = None


QUICK = Setting(seeds=(0,), samples=500, pretrain_kimg=6.4, kimg=3.2, trials=2, classifier_kimg=12)


def changes(**fields: Any) -> list[str]:
    """Overrides as after `-s`; a None is left out and `__` stands for a dot."""
    return [f"{path.replace('__', '.')}={value}" for path, value in fields.items() if value is not None]


class Bench:
    """Runs the jobs of one setting in one session."""

    def __init__(self, session: Any, setting: Setting, say: Callable[[str], None]) -> None:
        self.session, self.setting, self.say = session, setting, say

    def run(self, job: Any) -> Any:
        from jobs.execute import execute

        record = execute(job, self.session)
        self.say(f"  {job.name}: {record.id}")
        return record

    def load(self, spec: str, overrides: list[str]) -> Any:
        """A shipped spec, in fp32: every machine's table is to be the same."""
        from cluster.specfile import load_spec

        sections = {"pretrain": "train", "finetune": "train", "sweep": "base.train"}
        pinned = [f"{sections[spec]}.precision=fp32"] if spec in sections else []
        return load_spec(str(SPECS / f"{spec}.yaml"), [*overrides, *pinned])

    def prepare(self) -> None:
        """The extractor and the glyph networks."""
        glyphs = changes(data__limit=self.setting.glyphs)
        self.run(self.load("classifier", [*glyphs, *changes(train__kimg=self.setting.classifier_kimg)]))
        size = changes(train__kimg=self.setting.pretrain_kimg, model__width=self.setting.width)
        self.run(self.load("pretrain", [*glyphs, *size, "resources.workers=0", "metrics=[]"]))

    def scratch(self, seed: int) -> str:
        from cluster.job import OutputSpec, PretrainJob

        tuning, base = self._finetuning(seed), self.load("pretrain", changes(model__width=self.setting.width))
        name = f"{SCRATCH}-{seed}"
        job = PretrainJob(
            name=name,
            data=tuning.data,
            model=base.model,
            loss=base.loss,
            augment=tuning.augment,
            train=tuning.train,
            output=OutputSpec(artifact=name),
        )
        return self._artifact(self.run(job))

    def finetuned(self, seed: int) -> str:
        return self._artifact(self.run(self._finetuning(seed)))

    def swept(self, seed: int) -> str:
        grace = None if self.setting.kimg is None else self.setting.kimg / 4
        overrides = changes(
            name=f"{SWEPT}-{seed}",
            output__artifact=f"{SWEPT}-{seed}",
            base__data__seed=seed,
            base__evaluation__data__seed=seed,
            base__train__seed=seed,
            base__train__kimg=self.setting.kimg,
            search__seed=seed,
            search__trials=self.setting.trials,
            early_stop__grace_kimg=grace,
        )
        return self._artifact(self.run(self.load("sweep", overrides)))

    def _finetuning(self, seed: int) -> Any:
        """`finetune.yaml` with nothing frozen and no metrics on the way."""
        overrides = changes(
            name=f"finetuned-{seed}",
            output__artifact=f"finetuned-{seed}",
            data__seed=seed,
            train__seed=seed,
            train__kimg=self.setting.kimg,
            transfer__method="finetune",
            transfer__freeze_d=0,
        )
        return self.load("finetune", overrides)

    @staticmethod
    def _artifact(record: Any) -> str:
        output = record.outputs[0]
        return f"{output['ref'].partition('@')[0]}@{output['digest']}"

    def kid(self, ref: str, method: str, seed: int) -> float:
        """KID of a published generator against the digits that `seed` holds out."""
        from cluster.job import ArtifactInput, EvaluateJob

        shipped = self.load("evaluate", changes(data__seed=seed))
        job = EvaluateJob(
            name=f"kid-{method}-{seed}",
            target=ArtifactInput(artifact=ref),
            data=shipped.data,
            metrics=["kid"],
            samples=self.setting.samples,
            extractor=shipped.extractor,
            seed=1000,
        )
        record = self.run(job)
        return next(float(row["value"]) for row in self.session.runs.metrics(record.id) if row["name"] == "kid")


def measure(
    quick: bool = False,
    store: str | None = None,
    setting: Setting | None = None,
    methods: tuple[str, ...] | None = None,
) -> Result:
    """`methods` leaves some out, for a trial of the script; the target then is not judged."""
    from cluster.store import ArtifactStore, open_store
    from jobs.session import Session
    from tlgan.data import cache_root

    setting = setting or (QUICK if quick else Setting())
    methods = methods or (SCRATCH, FINETUNED, SWEPT)
    url = store or f"file://{cache_root() / 'bench' / 'store'}"

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with Session(ArtifactStore(open_store(url))) as session:
        bench = Bench(session, setting, say)
        bench.prepare()
        train = {SCRATCH: bench.scratch, FINETUNED: bench.finetuned, SWEPT: bench.swept}
        kids: dict[str, list[float]] = {method: [] for method in methods}
        for seed in setting.seeds:
            for method in methods:
                kids[method].append(bench.kid(train[method](seed), method, seed))
                say(f"  {method}, seed {seed}: KID {kids[method][-1]:.4f}")
    rows = [_row(method, values, setting, kids.get(SCRATCH)) for method, values in kids.items()]
    targets = []
    if SCRATCH in kids and SWEPT in kids:
        share = statistics.mean(kids[SWEPT]) / statistics.mean(kids[SCRATCH])
        targets = [Target("transfer: KID of the swept fine-tuning against scratch", "<=", TARGET, share)]
    budget = bench.load("finetune", changes(train__kimg=setting.kimg)).train.kimg
    notes = [
        "",
        f"{budget:g} kimg each, 100 target digits (a different hundred for each seed), {setting.samples} samples",
    ]
    return Result("transfer", quick, rows, targets, notes)


def _row(method: str, values: list[float], setting: Setting, scratch: list[float] | None) -> dict[str, Any]:
    each = {f"seed {seed}": value for seed, value in zip(setting.seeds, values, strict=True)}
    deviation = statistics.stdev(values) if len(values) > 1 else None
    share = statistics.mean(values) / statistics.mean(scratch) if scratch else None
    return {"KID of": method, "mean": statistics.mean(values), "std": deviation, **each, "share of scratch": share}


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--store", help="store to work in; default: a folder of the cache, kept between runs")
    given = parser.parse_args()
    sys.exit(show(measure(given.quick, given.store), given.json))
