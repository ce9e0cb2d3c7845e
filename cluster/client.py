"""The verbs of the store for Python.

    import cluster, tlgan
    client = cluster.Client("s3://bucket/prefix")
    g = tlgan.load_generator(client.pull("digits32:best"))

Errors are those of `tlgan.errors`, with the same words as on the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.contents import look_into
from cluster.control import resume_run, stop_run
from cluster.job import Job
from cluster.listing import artifact_rows, version_rows
from cluster.logs import read_logs
from cluster.outcome import outcome_error, standing, wait_for
from cluster.runs import Runs
from cluster.specfile import load_spec, parse_job
from cluster.store import ArtifactStore, open_store
from cluster.submission import submit
from cluster.targets import make_target, open_target
from cluster.targets.base import Target
from tlgan.manifest import Manifest


class Client:
    """A store at `url`: `file:///path`, a path, or `s3://bucket/prefix`; default: `$TLGAN_STORE`, then `.tlgan/store` here.

    Opening touches nothing: a store that can't be reached shows on the first call, as `BackendError`.
    """

    def __init__(self, url: str | None = None, *, cache_dir: Path | str | None = None) -> None:
        self.store = ArtifactStore(open_store(url), None if cache_dir is None else Path(cache_dir))

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    @property
    def url(self) -> str:
        return self.store.url

    def pull(
        self, ref: str, dest: Path | str | None = None, *, allow_unsafe: bool = False, verify_key: Path | None = None
    ) -> Path:
        """A directory with the files of `ref`, every byte verified: `dest` (new or empty), or else one in the cache.

        The one in the cache is shared: don't write to it. Raises `NotFound` with near names, `IntegrityError` (then nothing
        is left at `dest`), `Conflict` for a `dest` with other content, `SpecError` for a reference without a version.
        """
        where = None if dest is None else Path(dest).expanduser()
        return self.store.pull(ref, where, allow_unsafe=allow_unsafe, verify_key=verify_key)

    def push(
        self, path: Path | str, name: str, *, kind: str | None = None, aliases: Iterable[str] = ("latest",)
    ) -> Manifest:
        """Publishes a directory or a file and moves `aliases` to it. Its `ref` names exactly this version.

        `kind`: see `cluster.contents.look_into`; default: a model when it is one that loads, else `files`.
        """
        found = look_into(Path(path), kind)
        return self.store.push(
            name, found.path, kind=found.kind, recipe=found.recipe, facts=found.facts, aliases=tuple(aliases)
        )

    def resolve(self, ref: str) -> Manifest:
        """The manifest behind `name:alias` or `name@digest`."""
        return self.store.resolve(ref)

    def show(self, ref: str) -> dict[str, Any]:
        """What `artifact show --json` prints."""
        return self.store.show(ref)

    def artifacts(self, name: str | None = None) -> list[dict[str, Any]]:
        """The newest version of every artifact, or all versions of `name`, newest first; as `artifact ls --json`."""
        return artifact_rows(self.store) if name is None else version_rows(self.store, name)

    def ls(self) -> list[dict[str, Any]]:
        """Summaries of all runs, newest first; as `ls --json`."""
        return [record.summary() for record in Runs(self.store.store).list()]

    def submit(
        self,
        spec: Path | str | Mapping[str, Any] | Job,
        on: str | Mapping[str, Any] | None = None,
        *,
        set: Sequence[str] = (),
        fresh: bool = False,
    ) -> str:
        """Starts a job on a target and returns the run's id at once; the run outlives this process.

        `spec`: a file, or what would stand in one. `on`: a target of `tlgan.yaml`, or its settings. `set`: changes as in
        `train.kimg=8`. What was done before is not run again. Raises `Infeasible`, `Conflict`, `BackendError`, `SpecError`.
        """
        job = load_spec(spec, set) if isinstance(spec, str | Path) else parse_job(_plain(spec), set)
        return submit(job, self.store, _target(on), fresh=fresh).record.id

    def wait(self, run: str, timeout: float | None = None) -> dict[str, Any]:
        """The summary of a run once it has succeeded. Raises `RunFailed`, `RunStopped`; `RunTimeout` after `timeout` seconds."""
        record = wait_for(self._runs, self._runs.get(run).id, timeout)
        if error := outcome_error(record):
            raise error
        return record.summary()

    def status(self, run: str) -> dict[str, Any]:
        """The record of a run, with `standing` (the state in words) and `next` (commands); as `show --json`."""
        record = self._runs.get(run)
        here = standing(self.store.store, record)
        return {**record.model_dump(mode="json"), "standing": here.text, "next": here.next_steps}

    def stop(self, run: str, *, now: bool = False) -> bool:
        """Asks a run to stop with a checkpoint, or ends it `now`. True when it has ended already."""
        return stop_run(self._runs, self._runs.get(run), now=now)

    def resume(self, run: str, on: str | Mapping[str, Any] | None = None, *, set: Sequence[str] = ()) -> str:
        """Submits a run again that failed or was stopped, with the inputs and code it began with; returns its id.

        `set` may change its resources. Raises `Conflict`, which names what differs, for any other change.
        """
        record = self._runs.get(run)
        job = parse_job(record.spec, set)
        return resume_run(record, job, self.store, None if on is None else _target(on)).record.id

    def logs(self, run: str, source: str | None = None) -> Iterator[dict[str, str]]:
        """Lines of `{time, source, text}` by time; of one `source` (`driver`, `rank-0`, `trial-003`) or of all."""
        for line in read_logs(self.store.store, self._runs.get(run).id, source):
            yield vars(line)

    def events(self, run: str) -> Iterator[dict[str, Any]]:
        """What a run told while it ran, oldest first."""
        return self._runs.events(self._runs.get(run).id)

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """Rows of `{nimg, name, value, protocol}`."""
        return self._runs.metrics(self._runs.get(run).id)

    @property
    def _runs(self) -> Runs:
        return Runs(self.store.store)


def _target(on: str | Mapping[str, Any] | None) -> Target:
    return make_target("given", on) if isinstance(on, Mapping) else open_target(on)


def _plain(spec: Mapping[str, Any] | Job) -> Mapping[str, Any]:
    return spec.to_dict() if isinstance(spec, Job) else spec
