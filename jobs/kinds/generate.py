"""Kind `generate`: draw images with a published generator into files."""

from __future__ import annotations

from pathlib import Path

from cluster.events import EventWriter
from cluster.job import SUFFIXES, GenerateJob
from cluster.runs import RunRecord
from jobs.execute import Outcome
from jobs.images import digest_of_files, write_images
from jobs.pin import Plan, pin_artifact
from jobs.session import Session


def prepare(job: GenerateJob, session: Session) -> Plan:
    target, parent = pin_artifact(session, job.target, "target", "gan")
    dest = Path(job.out or f"{job.name}{SUFFIXES[job.format]}").expanduser()
    payload = {"target": target, "dest": dest, "valid": _is_there}
    return Plan(job, [parent], job.to_dict() | {"target": target.digest}, {}, None, payload)


def perform(plan: Plan, session: Session, run: RunRecord) -> Outcome:
    from tlgan.artifact import load_generator

    job, dest = plan.job, plan.payload["dest"]
    assert isinstance(job, GenerateJob)
    g = load_generator(session.artifacts.pull(plan.payload["target"]))
    write_images(g, dest, job.format, n=job.n, seed=job.seed, truncation=job.truncation, classes=job.classes)
    writer = EventWriter(session.artifacts.store, run.id, lambda event: session.hear(run.id, event))
    writer({"type": "written", "path": str(dest.absolute()), "images": job.n})
    writer.close()
    return Outcome(facts={"path": str(dest.absolute()), "digest": digest_of_files(dest)})


def _is_there(plan: Plan, record: RunRecord) -> bool:
    """The images of an earlier run are where this one would put them, unchanged."""
    dest = plan.payload["dest"]
    same_place = record.facts.get("path") == str(dest.absolute())
    return same_place and dest.exists() and record.facts.get("digest") == digest_of_files(dest)
