"""Submitting a job: everything it depends on is pinned and put into the store, then a target starts a driver for it.

runs/<run>/submissions/<id>.json     what a driver needs: the spec with references by digest, the code, the environment

A run that is submitted has its id before anybody has looked at its data: of its name, its pinned spec and the library's code.
The same spec goes on with the same run; another one under the same name is another run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.alive import SILENT_SECONDS, seconds_since_sign
from cluster.code import code_digest, environment, push_code
from cluster.job import EvaluateJob, Job, PipelineJob, SweepJob, TrainingJob
from cluster.pinning import pin_spec
from cluster.room import check_fits
from cluster.runs import RunRecord, Runs, new_record
from cluster.sections import ResourcesSpec
from cluster.specfile import parse_job
from cluster.store import ArtifactStore, s3_endpoint
from cluster.store.base import Store
from cluster.targets.base import Target, Ticket
from tlgan.canonical import digest_of
from tlgan.errors import BackendError, Conflict, NotFound, TlganError
from tlgan.manifest import Manifest, now_utc

WITHOUT_WEIGHT = ("resources", "checkpoint", "grid", "retry")
"""Sections that change how a run goes and not what comes out."""


@dataclass(frozen=True)
class Submitted:
    """`started` is False for a run that was done before. `resumes`: it goes on from an attempt that ended."""

    record: RunRecord
    started: bool
    resumes: bool = False
    request: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A submission before anything is sent."""

    job: Job
    run_id: str
    inputs: dict[str, dict[str, str]]
    ticket: Ticket


def prepare(job: Job, artifacts: ArtifactStore, target: Target, run_id: str | None = None) -> Prepared:
    """Pins references and paths, gives the run its id and asks the target whether it can ever hold the run.

    `run_id`: of a run that is taken up as it is. Raises `NotFound`, `Infeasible`, `BackendError`, `SpecError`.
    """
    spec, inputs = pin_spec(job, artifacts)
    pinned = parse_job(spec)
    run_id = run_id or f"{job.name}-{identity(pinned)[:8]}"
    ticket = Ticket(
        run=run_id,
        submission=uuid.uuid4().hex[:12],
        kind=job.kind,
        store=artifacts.url,
        endpoint=s3_endpoint(),
        folder=str(Path.cwd()),
        demands=wanted(pinned),
        driver=driver_of(pinned),
    )
    target.refuse(ticket)
    check_room(pinned, target)
    return Prepared(pinned, run_id, inputs, ticket)


def check_room(job: Job, target: Target) -> None:
    """Raises `Infeasible` when the target, empty, has no room for some part of the job."""
    nodes = target.nodes()
    for demand in demands(job) if nodes is not None else ():
        check_fits(demand, nodes or [], target.where())


def identity(job: Job) -> str:
    """Digest of all that decides what a submitted job makes, as far as it is known before its data is read."""
    return digest_of({"spec": _weighty(job.to_dict()), "code": code_digest()})


def _weighty(spec: dict[str, Any]) -> dict[str, Any]:
    left = {name: value for name, value in spec.items() if name not in WITHOUT_WEIGHT}
    if isinstance(left.get("base"), dict):
        left["base"] = _weighty(left["base"])
    return left


def demands(job: Job) -> list[ResourcesSpec]:
    """What each part of a job asks of one target; a sweep's trials are workers."""
    if isinstance(job, PipelineJob):
        return [demand for stage in job.stages.values() for demand in demands(stage.run)]
    if isinstance(job, SweepJob):
        own = job.base.resources
        return [own.model_copy(update={"workers": max(own.workers, 1)})]
    return [job.resources] if isinstance(job, TrainingJob | EvaluateJob) else []


def wanted(job: Job) -> list[ResourcesSpec]:
    """The workers that each part would like to have at the same time; a sweep can do with fewer."""
    if isinstance(job, PipelineJob):
        return [demand for stage in job.stages.values() for demand in wanted(stage.run)]
    if isinstance(job, SweepJob):
        own = job.base.resources
        return [own.model_copy(update={"workers": max(own.workers, 1) * job.search.parallel})]
    return [demand for demand in demands(job) if demand.workers]


def driver_of(job: Job) -> ResourcesSpec | None:
    """What the driver reserves for its own computing: nothing beside workers, which could then find no room."""
    own = demands(job) or [ResourcesSpec()]
    return None if any(demand.workers for demand in own) else max(own, key=lambda demand: demand.cpus_per_worker)


def refuse_other_spec(record: RunRecord, job: Job) -> None:
    """Raises `Conflict`, naming the fields, when `job` would make something else than the run it is to go on with."""
    if changed := changes_between(_weighty(record.spec), _weighty(job.to_dict())):
        raise Conflict(
            f"run {record.id} was begun with another spec: {'; '.join(changed[:5])}",
            hint="submit the changed spec: it becomes a run of its own",
        )


def changes_between(before: dict[str, Any], now: dict[str, Any], besides: tuple[str, ...] = ()) -> list[str]:
    """`train.lr_g is 0.1 and was 0.2`, for every field that differs; not those at the paths `besides`."""
    old, new = dict(_flat(before)), dict(_flat(now))
    paths = [path for path in {**old, **new} if path not in besides and old.get(path) != new.get(path)]
    return [f"{path} is {_shown(new.get(path))} and was {_shown(old.get(path))}" for path in paths]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not path):
        for name, one in value.items():
            yield from _flat(one, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def submit(
    job: Job,
    artifacts: ArtifactStore,
    target: Target,
    *,
    fresh: bool = False,
    resumes: RunRecord | None = None,
    render: bool = False,
) -> Submitted:
    """Starts `job` on `target` and returns at once, with the record of the run; one that was done before is not started.

    `render`: everything but the start, for which a person has `Submitted.request`. `resumes`: the run to go on with, with
    the code it was submitted with. Raises `Conflict` while the run is running, `Infeasible` for what the target can never
    hold, and what `prepare` raises.
    """
    runs = Runs(artifacts.store)
    prepared = prepare(job, artifacts, target, resumes.id if resumes else None)
    found = runs.find(prepared.run_id)
    if found is not None:
        if not fresh and found.state == "succeeded" and _outputs_exist(found, artifacts):
            return Submitted(found, started=False)
        refuse_running(artifacts.store, found, target)
    code = code_of(resumes, artifacts) if resumes else push_code(artifacts)
    document = {
        "id": prepared.ticket.submission,
        "run": prepared.run_id,
        "spec": prepared.job.to_dict(),
        "inputs": prepared.inputs,
        "code": {"ref": code.ref, "digest": code.digest, "library": code.facts["code"]},
        "fresh": fresh,
        "target": target.model_dump(mode="json", exclude={"price"}),
        "submitted": now_utc(),
        "environment": environment(),
    }
    runs.put_json(prepared.run_id, f"submissions/{prepared.ticket.submission}.json", document)
    record = _pending(runs, found, prepared, document)
    text = target.rendered(prepared.ticket) if render else None
    try:
        handle = {**target.handle(prepared.ticket), "rendered": True} if render else target.start(prepared.ticket)
    except TlganError as error:
        runs.update(record.id, state="failed", reason=f"it could not be started: {error.message}", finished=now_utc())
        raise
    record = runs.revise(record.id, lambda now: {"submission": {**(now.submission or {}), "handle": handle}})
    return Submitted(record, started=True, resumes=found is not None, request=text)


def code_of(record: RunRecord, artifacts: ArtifactStore) -> Manifest:
    """The code that a run was submitted with; this process's own when it is the same, or the run has none of its own.

    Raises `Conflict` when it is neither in the store any more nor here.
    """
    told = (record.submission or {}).get("code")
    if told is None:
        return push_code(artifacts)
    try:
        return artifacts.resolve(f"{told['ref'].partition('@')[0]}@{told['digest']}")
    except NotFound:
        if told["library"] == code_digest():
            return push_code(artifacts)
    raise Conflict(
        f"the code that run {record.id} was submitted with is not in the store any more, and the code here is another",
        hint="submit the spec anew",
    )


def _pending(runs: Runs, found: RunRecord | None, prepared: Prepared, document: dict[str, Any]) -> RunRecord:
    """The record before a driver has begun; it keeps the number of attempts of an earlier one."""
    told = {name: document[name] for name in ("id", "target", "code", "submitted")}
    if found is not None and (found.submission is None or found.submission.get("began_attached")):
        told["began_attached"] = True
    fresh = new_record(
        prepared.run_id,
        prepared.job.name,
        prepared.job.kind,
        state="pending",
        inputs=prepared.inputs,
        spec=prepared.job.to_dict(),
        submission=told,
    )
    if found is None:
        return runs.create(fresh)

    def again(now: RunRecord) -> dict[str, Any]:
        if (now.state, now.attempt, now.submission) != (found.state, found.attempt, found.submission):
            raise Conflict(f"run {now.id} was taken up by somebody else meanwhile", hint=f"tlgan show {now.id}")
        return {
            "state": "pending",
            "reason": None,
            "finished": None,
            "outputs": [],
            "submission": told,
            "spec": fresh.spec,
        }

    return runs.revise(found.id, again)


def refuse_running(store: Store, found: RunRecord, target: Target) -> None:
    """Raises `Conflict` while a driver of the run lives or is about to begin, as far as its signs and its target tell."""
    hint = f"`tlgan wait {found.id}` waits for it, `tlgan stop {found.id}` ends it"
    if found.state == "running":
        silent = seconds_since_sign(store, found) if found.process_is_alive is None else None
        if found.process_is_alive or (silent is not None and silent < SILENT_SECONDS):
            raise Conflict(f"run {found.id} is running already on {found.host} (process {found.pid})", hint=hint)
    elif found.state == "pending" and (handle := (found.submission or {}).get("handle")):
        try:
            said = target.progress(handle)
        except (BackendError, KeyError):
            return
        if said.state in ("pending", "running"):
            raise Conflict(f"run {found.id} was submitted before and waits to begin ({said.message})", hint=hint)


def _outputs_exist(found: RunRecord, artifacts: ArtifactStore) -> bool:
    try:
        for output in found.outputs:
            artifacts.resolve(f"{output['ref'].partition('@')[0]}@{output['digest']}")
    except NotFound:
        return False
    return True
