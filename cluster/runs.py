"""The run record: what was asked, what state it is in and why, what came out. All of it in the store, readable without a cluster.

runs/<run>/run.json                    the record (see `RunRecord`)
runs/<run>/events/<UTC>-<writer>.jsonl   bounded segments of events, one JSON object a line
runs/<run>/grids/<nimg>.png            samples on fixed latents
runs/<run>/draft-<attempt>.json        what the training made, before it is published; see `cluster.drafts`
runs/<run>/alive/<attempt>.json        signs of life; see `cluster.alive`
runs/<run>/checkpoints/...             see `cluster.checkpoints`
runs/<run>/logs/<source>/...           what its processes print; see `cluster.logs`
runs/<run>/submissions/<id>.json       what a detached driver starts from; see `cluster.submission`
runs/<run>/estimate.json, probes/...   of `tlgan plan`, before the run
runs/<run>/same.json                   below the id that an identity gives: the submitted run that did it
runs/<run>/trials/<n>/...              the same again for each trial of a sweep
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.store.base import Store
from cluster.store.transfer import in_parallel
from tlgan.canonical import canonical_json
from tlgan.errors import Conflict, IntegrityError, NotFound, SpecError, did_you_mean
from tlgan.manifest import now_utc

log = logging.getLogger("tlgan.runs")
State = Literal["pending", "running", "succeeded", "failed", "stopped"]
FINAL = ("succeeded", "failed", "stopped")
MAX_RECORD = 4 << 20
THREADS = 8
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")


class RunRecord(BaseModel):
    """`inputs` maps a role to the artifact's pinned reference and digest; `outputs` are published artifacts.

    `submission`: how and where a detached run was started; see `cluster.submission`. `failure`: code, exit code and hint.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    name: str
    kind: str
    state: State = "pending"
    reason: str | None = None
    created: str
    started: str | None = None
    finished: str | None = None
    outputs: list[dict[str, str]] = []
    inputs: dict[str, dict[str, str]] = {}
    spec: dict[str, Any] = {}
    recipe: dict[str, Any] | None = None
    facts: dict[str, Any] = {}
    attempt: int = 0
    host: str = ""
    pid: int = 0
    process: str = ""
    version: str = ""
    versions: dict[str, str] = {}
    submission: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """The fields that `ls --json` promises."""
        wanted = ("id", "name", "kind", "state", "reason", "started", "finished", "outputs")
        return {key: getattr(self, key) for key in wanted}

    @property
    def done_by(self) -> str:
        """Id of the run that did what this one stands for; its own, unless it found its work done before."""
        return str(self.facts.get("same_as", self.id))

    @property
    def process_is_alive(self) -> bool | None:
        """Whether the process that drove the run still lives; None when it was on another machine."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's
            pass
        return birth_of(self.pid) in (self.process, "")


class Runs:
    """The runs of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, record: RunRecord) -> RunRecord:
        """Writes a new record. Raises `Conflict` when the id is taken."""
        if not self.store.put_if_absent(_key(record.id), _dump(record)):
            raise Conflict(f"run {record.id} exists")
        return record

    def get(self, run: str) -> RunRecord:
        """By id, by name (then the newest), or by the unique beginning of an id.

        Raises `NotFound` with near names, `SpecError` when several ids begin so.
        """
        if _ID.fullmatch(run):
            try:
                return self._read(_key(run))
            except NotFound:
                pass
        everything = self.list()
        if named := [r for r in everything if r.name == run]:
            return named[0]
        matches = [r.id for r in everything if r.id.startswith(run)] if run else []
        if len(matches) > 1:
            raise SpecError(
                f"{len(matches)} runs begin with {run}: {', '.join(matches[:5])}", hint="write more of the id"
            )
        if matches:
            return next(r for r in everything if r.id == matches[0])
        near = did_you_mean(run, [r.id for r in everything] + [r.name for r in everything])
        raise NotFound(f"there is no run {run} in {self.store.url}", hint=near or "`tlgan ls` shows the runs")

    def find(self, run_id: str) -> RunRecord | None:
        try:
            return self._read(_key(run_id))
        except NotFound:
            return None

    def list(self) -> builtins.list[RunRecord]:
        """Newest first."""
        found = in_parallel(self._readable, self.store.folders("runs/"), THREADS)
        return sorted((record for record in found if record), key=lambda r: r.created, reverse=True)

    def _readable(self, run_id: str) -> RunRecord | None:
        """None for a run without a record, and for a damaged one: it does not hide the others."""
        try:
            return self.find(run_id)
        except (IntegrityError, SpecError) as error:
            log.warning("%s", error)
            return None

    def update(self, run_id: str, **changes: Any) -> RunRecord:
        """Changes fields of a record."""
        return self.revise(run_id, lambda _: changes)

    def revise(self, run_id: str, change: Callable[[RunRecord], dict[str, Any]]) -> RunRecord:
        """Changes the fields that `change` returns for the record as it is; it may raise.

        Against other writers by compare-and-swap, where the server has it: then `change` is asked again.
        """
        while True:
            data, token = self.store.read(_key(run_id), max_bytes=MAX_RECORD)
            record = _parse(_key(run_id), data)
            record = record.model_copy(update=change(record))
            if not self.store.capabilities.compare_and_swap:
                self.store.put(_key(run_id), _dump(record))
                return record
            try:
                self.store.compare_and_swap(_key(run_id), _dump(record), token)
                return record
            except Conflict:
                continue

    def _read(self, key: str) -> RunRecord:
        return _parse(key, self.store.get(key, max_bytes=MAX_RECORD))

    def put_json(self, run_id: str, path: str, value: Any) -> None:
        self.store.put(f"runs/{run_id}/{path}", json.dumps(value).encode())

    def get_json(self, run_id: str, path: str) -> Any | None:
        """The parsed object, or None when there is none."""
        try:
            return json.loads(self.store.get(f"runs/{run_id}/{path}", max_bytes=64 << 20))
        except NotFound:
            return None

    def grids(self, run_id: str) -> dict[int, str]:
        """nimg -> key of each sample grid, in order."""
        found = {}
        for info in self.store.list(f"runs/{run_id}/grids/"):
            stem = info.key.rpartition("/")[2].removesuffix(".png")
            if stem.isdigit():
                found[int(stem)] = info.key
        return dict(sorted(found.items()))

    def segments(self, run_id: str) -> set[str]:
        """Keys of the segments of events there are."""
        return {info.key for info in self.store.list(f"runs/{run_id}/events/")}

    def events(self, run_id: str, seen: set[str] | None = None) -> Iterator[dict[str, Any]]:
        """Events in the order of their segments. `seen` collects segment keys; those in it are left out."""
        for info in self.store.list(f"runs/{run_id}/events/"):
            if seen is not None and info.key in seen:
                continue
            lines = self.store.get(info.key, max_bytes=64 << 20).splitlines()
            if seen is not None:
                seen.add(info.key)
            for line in lines:
                yield json.loads(line)

    def metrics(self, run_id: str) -> builtins.list[dict[str, Any]]:
        """Rows of `{nimg, name, value, protocol}` by nimg; where a step was done twice (after a restart), the last counts."""
        rows = {
            (event.get("nimg", 0), event["name"]): {
                key: event.get(key) for key in ("nimg", "name", "value", "protocol")
            }
            for event in self.events(run_id)
            if event["type"] == "metric"
        }
        return [rows[key] for key in sorted(rows)]


def new_record(run_id: str, name: str, kind: str, **fields: Any) -> RunRecord:
    """A record of a run that this process drives from now on."""
    import tlgan

    return RunRecord(
        id=run_id,
        name=name,
        kind=kind,
        created=now_utc(),
        host=socket.gethostname(),
        pid=os.getpid(),
        process=birth_of(os.getpid()),
        version=tlgan.__version__,
        versions={name: metadata.version(name) for name in ("torch", "torchvision", "ray", "numpy")},
        **fields,
    )


def birth_of(pid: int) -> str:
    """What tells a process from a later one with its number; empty where the system does not say.

    `gone` for one that has ended and that its parent has not asked about yet.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "gone" if fields[0] in "ZX" else f"{boot[:8]}-{fields[19]}"


def _parse(key: str, data: bytes) -> RunRecord:
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise IntegrityError(f"{key} is no record of a run: {first['msg']}") from None


def _key(run_id: str) -> str:
    return f"runs/{run_id}/run.json"


def _dump(record: RunRecord) -> bytes:
    return canonical_json(record.model_dump(mode="json"))
