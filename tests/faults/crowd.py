"""Processes that push, move aliases, delete and collect on one server at once, and a judge of what they say they did.

    python -m tests.faults.crowd URL SEED SECONDS LOG      one of them; it starts at a line on its stdin

Leases last two seconds and now and then somebody is stopped for longer, so that collectors break leases of the living.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from cluster.store import ABSENT, ArtifactStore, Version, leases, open_store, trash
from cluster.store.gc import Collector
from cluster.store.retention import Policy
from tests.faults.breaking import without_fsync
from tests.faults.operations import later
from tlgan.errors import IntegrityError, TlganError
from tlgan.naming import ArtifactRef

ROOT = Path(__file__).parents[2]
PROCESSES = 8
TTL = 2.0
KEPT, SCRATCH, RACE, ALIAS = "kept", "scratch", "race", "champion"
NOW = timedelta(0)
POLICY = Policy(keep_last=3, names=(SCRATCH, RACE), grace=NOW, restorable=NOW)


class Worker:
    """One of the crowd. Everything it was told goes to its log, a JSON line each."""

    def __init__(self, url: str, seed: int, log: Path, folder: Path) -> None:
        self.random, self.folder, self.seed = Random(seed), folder, seed
        self.artifacts = ArtifactStore(open_store(url), folder / "cache", threads=2)
        self.artifacts.store.capabilities  # noqa: B018 - probes a server before the race starts
        self.log, self.count = log.open("w"), 0

    def say(self, what: str, **facts: Any) -> None:
        print(json.dumps({"what": what, **facts}), file=self.log, flush=True)

    def step(self) -> None:
        act = self.random.choice([self.push, self.push, self.race, self.race, self.collect, self.pull, self.remove])
        try:
            act()
        except IntegrityError as error:
            self.say("wrong", act=act.__name__, error=str(error))
        except TlganError as error:
            self.say("refused", act=act.__name__, error=type(error).__name__)

    def push(self) -> None:
        """Few contents: what one pushes, another is just collecting."""
        name = self.random.choice([KEPT, SCRATCH])
        manifest = self.artifacts.push(name, self._files(), kind="files")
        self.say("pushed", ref=manifest.ref)

    def race(self) -> None:
        """Each digest is new, so that no state of the alias comes twice."""
        self.count += 1
        folder = self._files(own=f"{self.seed} {self.count}")
        current = self.artifacts.aliases(RACE).get(ALIAS)
        target = self.artifacts.push(RACE, folder, kind="files", aliases=())
        self.say("pushed", ref=target.ref)
        expect = current.digest if current else ABSENT
        try:
            moved = self.artifacts.move_alias(RACE, ALIAS, target.digest, expect)
        except TlganError as error:
            self.say("outrun", expect=expect, digest=target.digest, error=type(error).__name__)
            return
        prev = moved.prev.digest if moved.prev else ABSENT
        self.say("won", expect=expect, digest=target.digest, prev=prev)

    def collect(self) -> None:
        collector = Collector(self.artifacts.store, POLICY, threads=2)
        plan = collector.plan(later())
        self.say("gone", refs=[version.ref for version in plan.versions])
        done = collector.run(plan)
        self.say("collected", blobs=len(done.blobs), broken=len(done.broken), spared=len(done.spared))

    def pull(self) -> None:
        name = self.random.choice([KEPT, SCRATCH, RACE])
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self.artifacts.pull(f"{name}:{ALIAS if name == RACE else 'latest'}")
        self.say("pulled")

    def remove(self) -> None:
        """Of the scratch versions, and half of the time back again."""
        versions = self.artifacts.versions(SCRATCH)
        if not versions:
            return
        victim = self.random.choice(versions)
        self.say("gone", refs=[victim.ref])
        trash.remove(self.artifacts.store, victim)
        self.say("removed")
        if self.random.random() < 0.5:
            trash.restore(self.artifacts.store, victim, threads=2)
            self.say("restored")

    def _files(self, own: str = "") -> Path:
        folder = self.folder / "source"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "shared.txt").write_text(f"content {self.random.randrange(4)} " * 50)
        (folder / "own.txt").write_text(own or f"content {self.random.randrange(4)} " * 40)
        return folder


@dataclass
class Verdict:
    """`counts`: events by kind. `problems` is empty when the promises held."""

    counts: Counter[str] = field(default_factory=Counter)
    versions: int = 0
    live_bytes_lost: int = 0
    acknowledged_lost: int = 0
    double_winners: int = 0
    problems: list[str] = field(default_factory=list)


def run(url: str, seconds: float, seed: int, folder: Path, environment: Mapping[str, str] | None = None) -> Verdict:
    """`PROCESSES` workers on the store at `url` for `seconds`, then the verdict. `folder`: empty, for logs and caches."""
    random = Random(seed)
    logs = [folder / f"{number}.jsonl" for number in range(PROCESSES)]
    variables = {**os.environ, **(environment or {})}
    with ExitStack() as stack:
        workers = []
        for number, log in enumerate(logs):
            command = [
                sys.executable,
                "-m",
                "tests.faults.crowd",
                url,
                str(seed * 100 + number),
                str(seconds),
                str(log),
            ]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            workers.append(stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=variables, **pipes)))
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"  # type: ignore[union-attr]
        for worker in workers:
            print("go", file=worker.stdin, flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end - TTL:
            sleeper = random.choice(workers)
            sleeper.send_signal(signal.SIGSTOP)
            time.sleep(min(random.uniform(0.2, 2.5 * TTL), max(0.0, end - time.monotonic())))
            sleeper.send_signal(signal.SIGCONT)
        codes = [worker.wait(120) for worker in workers]
    verdict = judge(ArtifactStore(open_store(url), folder / "cache"), logs)
    if any(codes):
        verdict.problems.append(f"workers ended with {codes}")
    return verdict


def judge(artifacts: ArtifactStore, logs: list[Path]) -> Verdict:
    """Holds what the workers were told against what is there."""
    events = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    verdict = Verdict(Counter(event["what"] for event in events))
    verdict.counts["broken leases"] = sum(event.get("broken", 0) for event in events)
    verdict.counts["blobs collected"] = sum(event.get("blobs", 0) for event in events)
    verdict.problems += [f"{event['act']}: {event['error']}" for event in events if event["what"] == "wrong"]
    refs = {version.ref for name in artifacts.names() for version in artifacts.versions(name)}
    verdict.versions = len(refs)
    for ref in sorted(refs):
        problems = artifacts.verify(ref, full=True).problems
        verdict.live_bytes_lost += len(problems)
        verdict.problems += problems
    pushed = {event["ref"] for event in events if event["what"] == "pushed"}
    gone = {ref for event in events if event["what"] == "gone" for ref in event["refs"]}
    lost = sorted(pushed - gone - refs)
    verdict.acknowledged_lost = len(lost)
    verdict.problems += [f"{ref} was acknowledged and is lost" for ref in lost]
    _judge_moves(verdict, artifacts, events)
    return verdict


def _judge_moves(verdict: Verdict, artifacts: ArtifactStore, events: list[dict[str, Any]]) -> None:
    """The successful moves are one chain from "none" to where the alias is now."""
    won = [event for event in events if event["what"] == "won"]
    unsure = {e["digest"] for e in events if e["what"] == "outrun" and e["error"] not in ("Conflict", "NotFound")}
    by_state = Counter(event["expect"] for event in won)
    verdict.double_winners = sum(count - 1 for count in by_state.values())
    verdict.problems += [f"{state} has {count} winners" for state, count in by_state.items() if count > 1]
    verdict.problems += [f"{e['digest']} took over from {e['prev']}" for e in won if e["prev"] != e["expect"]]
    targets = {event["digest"] for event in won} | unsure
    verdict.problems += [f"{e['expect']} was never pointed at" for e in won if e["expect"] not in targets | {ABSENT}]
    record = artifacts.aliases(RACE).get(ALIAS)
    final = record.digest if record else ABSENT
    heads = {event["digest"] for event in won} - by_state.keys()
    if won and not unsure and heads != {final}:
        verdict.problems.append(f"the chain ends at {sorted(heads)}, the alias is at {final}")
    if record and Version.parse(f"versions/{RACE}/{record.version}.json") not in artifacts.versions(RACE):
        verdict.problems.append(f"{ArtifactRef(RACE, alias=ALIAS)} points at nothing")


def main() -> None:
    url, seed, seconds, log = sys.argv[1:]
    leases.hold = functools.partial(leases.hold, ttl=TTL)
    with tempfile.TemporaryDirectory() as folder, without_fsync():
        worker = Worker(url, int(seed), Path(log), Path(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            worker.step()
        worker.log.close()


if __name__ == "__main__":
    main()
