"""A spec twice: undisturbed, then under blows, each in a store of its own; and what the two made, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.job import Job, PipelineJob, SweepJob, TrainingJob
from cluster.minicluster import MiniCluster
from cluster.store import ArtifactStore
from cluster.store.copying import copy, family
from jobs.chaos.blows import DRIVER, HEAD, NODE, TWIN, WORKER, Blow
from jobs.chaos.comparing import Verdict, compare
from jobs.chaos.harness import Course, Subject, run
from jobs.pin import EMBEDDED
from tlgan.errors import NotFound, SpecError

Say = Callable[[str], None]
BY_DEFAULT = (WORKER, NODE, DRIVER)


@dataclass(frozen=True)
class Findings:
    """`same`: every result has the same bytes, whatever happened on the way."""

    blows: list[Blow]
    whole: Course
    struck: Course
    verdicts: list[Verdict]

    @property
    def same(self) -> bool:
        return all(verdict.same for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "seconds": {"undisturbed": self.whole.seconds, "struck": self.struck.seconds},
            "drivers": self.struck.drivers,
            "blows": [one.to_json() for one in self.struck.struck],
            "artifacts": [verdict.to_json() for verdict in self.verdicts],
        }


def experiment(
    job: Job, source: ArtifactStore, folder: Path, plan: Callable[[list[str]], list[Blow]], kinds: list[str], say: Say
) -> Findings:
    """Runs `job` both ways below `folder`, from copies of what it needs of `source`. `plan` draws the blows."""
    size = workers_of(job)
    chosen = check_kinds(kinds, size)
    blows = plan(chosen)
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps(job.to_dict()))
    stores = {name: ArtifactStore(f"file://{folder / name}") for name in ("undisturbed", "struck")}
    inputs = set[str]()
    for store in stores.values():
        inputs |= bring(job, source, store)
    say("undisturbed first")
    with _cluster(folder / "c1", size) as cluster:
        whole = run(Subject(spec, stores["undisturbed"], cluster, folder / "cache-undisturbed"), [], 0, say)
    say(f"undisturbed in {whole.seconds:.0f} s; now {', '.join(f'{b.kind} at {b.at:.0%}' for b in blows)}")
    with _cluster(folder / "c2", size) as cluster:
        struck = run(Subject(spec, stores["struck"], cluster, folder / "cache-struck"), blows, whole.images, say)
    readers = [ArtifactStore(store.store, cache_dir=folder / "read") for store in stores.values()]
    names = [name for name in readers[0].names() if name not in inputs]
    return Findings(blows, whole, struck, compare(readers[0], readers[1], names))


def _cluster(folder: Path, size: int) -> Any:
    """Two nodes that hold all workers between them; None for a job that needs no Ray."""
    if not size:
        return nullcontext()
    folder.mkdir()
    return MiniCluster(folder, nodes=2, cpus=-(-size // 2))


def workers_of(job: Job) -> int:
    """Processors that the job's workers take on Ray at a time; 0 when it runs in the driver's process alone."""
    if isinstance(job, PipelineJob):
        return max(workers_of(stage.run) for stage in job.stages.values())
    if isinstance(job, SweepJob):
        return job.search.parallel * max(1, job.base.resources.workers) * job.base.resources.cpus_per_worker
    if isinstance(job, TrainingJob):
        return job.resources.workers * job.resources.cpus_per_worker
    raise SpecError(
        f"a job of kind {job.kind} trains nothing", hint="chaos is for pretrain, finetune, sweep and pipeline"
    )


def check_kinds(kinds: list[str], size: int) -> list[str]:
    """The kinds of blows that can hit a job of `size` workers. Raises `SpecError` for one that was asked for and can't."""
    if size:
        return kinds or list(BY_DEFAULT)
    if cannot := [kind for kind in kinds if kind in (NODE, HEAD)]:
        raise SpecError(
            f"--kill {cannot[0]}: the job trains in its driver's process, it has no {cannot[0]}",
            hint=f"set resources.workers (-s resources.workers=2), or choose of {WORKER}, {DRIVER}, {TWIN}",
        )
    return kinds or [DRIVER]


def bring(job: Job, source: ArtifactStore, target: ArtifactStore) -> set[str]:
    """Copies the artifacts that a job names, and the embedded extractor where there is one. Their names."""
    found: set[str] = set()
    for ref in sorted({*references(job.to_dict()), f"{EMBEDDED}:latest"}):
        try:
            manifests = family(source, [ref], with_parents=False).manifests
        except (NotFound, SpecError):  # a stage will make it
            continue
        for manifest in manifests:
            alias = ref.partition("@")[0].partition(":")[2]
            copy(source, target, manifest, [alias] if alias else [])
            found.add(manifest.name)
    return found


def references(value: Any, key: str = "") -> Iterator[str]:
    """What looks like a reference to an artifact in a spec."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from references(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner, key)
    elif isinstance(value, str) and key == "artifact" and (":" in value or "@" in value):
        yield value
    elif isinstance(value, str) and key == "extractor" and value.startswith("classifier:"):
        yield value.partition(":")[2]
