"""A sweep on simulated workers: trials take random time, are told of in random order, and the driver is killed at random points.

Nothing is trained: a trial's value is a closed formula of its parameters and its images, as reproducible as a training is.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
from types import SimpleNamespace
from typing import Any

from cluster.job import SweepJob
from cluster.search.build import director_of
from cluster.search.director import Director, Turn
from cluster.search.ledger import Entry, Ledger
from cluster.specfile import parse_job
from tlgan.errors import NotFound

SPACE = {
    "train.lr_g": {"log_uniform": [1e-5, 1e-2]},
    "transfer.freeze_d": {"int": [0, 3]},
    "train.beta1": {"choice": [0.0, 0.5, 0.9]},
}


def sweep(search: dict[str, Any], early: dict[str, Any] | None = None, **changes: Any) -> SweepJob:
    spec = {
        "kind": "sweep",
        "name": "s",
        "base": {
            "kind": "finetune",
            "name": "child",
            "init_from": {"artifact": "a:b"},
            "data": {"source": "digits"},
            "transfer": {"method": "freeze"},
            "train": {"kimg": 27, "batch_size": 32},
        },
        "space": SPACE,
        "search": search,
        "early_stop": early or {"scheduler": "none"},
        **changes,
    }
    job = parse_job(spec)
    assert isinstance(job, SweepJob)
    return job


def value_of(trial: str, history: list[tuple[int, dict[str, Any]]], nimg: int) -> float:
    """What a training with these values from these images on would measure at `nimg`: better with time, with ups and downs."""
    text = json.dumps([history, nimg], sort_keys=True)
    noise = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
    lr = history[-1][1]["train.lr_g"]
    return round(abs(lr - 1e-3) * 100 + noise / 2 + 1000 / (nimg + 1000), 6)


class Memory:
    """What a ledger needs of a store. `lives`: at that many writes from now the writer dies, before it or right after."""

    def __init__(self, rng: random.Random) -> None:
        self.objects: dict[str, bytes] = {}
        self.rng, self.lives = rng, math.inf

    def list(self, prefix: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(key=key) for key in sorted(self.objects) if key.startswith(prefix)]

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        if key not in self.objects:
            raise NotFound(key)
        return self.objects[key]

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.lives -= 1
        if self.lives <= 0 and self.rng.random() < 0.5:
            raise Killed
        created = self.objects.setdefault(key, data) is data
        if self.lives <= 0:
            raise Killed
        return created


class Killed(Exception):
    pass


class Simulation:
    """`run` drives one attempt until the end, or until it is killed at its ledger entry number `lifetime`, just before it or
    just after. `fails`: trials that raise."""

    def __init__(self, job: SweepJob, seed: int, *, fails: set[str] | None = None) -> None:
        self.job, self.rng = job, random.Random(seed)
        self.store: Any = Memory(self.rng)
        self.fails, self.attempts = fails or set(), 0
        self.histories: dict[tuple[str, int], list[tuple[int, dict[str, Any]]]] = {}
        self.beside: dict[tuple[str, int], set[int | None]] = {}  # by trial and the nimg from which it goes on
        self.most = 0

    def run(self, lifetime: float = math.inf) -> Director | None:
        """None when it was killed."""
        self.attempts += 1
        self.store.lives = lifetime
        try:
            return self._drive()
        except Killed:
            return None

    def _drive(self) -> Director:
        self.director = director_of(self.job, Ledger(self.store, "s-1"), clock=lambda: 0.0)
        self.events: list[tuple[float, int, str, str, int]] = []  # (time, tie, what, trial, nimg)
        self.now = 0.0
        while not self.director.over:
            self._hand_out()
            self._step()
        return self.director

    def ledger(self) -> Ledger:
        return Ledger(self.store, "s-1")

    def entries(self) -> list[Entry]:
        return list(self.ledger())

    def _hand_out(self) -> None:
        while turn := self.director.next_turn():
            self._begin(turn)
        self.most = max(self.most, len(self.director.active))
        for answer in self.director.answers():
            if answer.do == "go":
                self.beside.setdefault((answer.trial, answer.nimg), set()).add(answer.beside)
                self._until_next(answer.trial, answer.nimg)
            elif answer.turn:
                self._begin(answer.turn)
            else:
                self._at(answer.trial, "end", answer.nimg)

    def _begin(self, turn: Turn) -> None:
        self.director.begun(turn.trial)
        before = self.histories[turn.start] if turn.start else []
        nimg = turn.start[1] if turn.start else 0
        self.beside.setdefault((turn.trial, nimg), set()).add(turn.beside)
        changed = not before or before[-1][1] != turn.params
        self.histories[turn.trial, 0] = [*before, (nimg, turn.params)] if changed else before
        self._until_next(turn.trial, nimg)

    def _until_next(self, trial: str, nimg: int) -> None:
        member = self.director.member(trial)
        marks = [mark for mark in (*member.marks, member.total) if mark > nimg]
        if marks:
            self._at(trial, "fail" if trial in self.fails else "measured", marks[0])
        else:
            self._at(trial, "end", nimg)

    def _at(self, trial: str, what: str, nimg: int) -> None:
        heapq.heappush(self.events, (self.now + self.rng.expovariate(1.0), self.rng.getrandbits(30), what, trial, nimg))

    def _step(self) -> None:
        assert self.events, "nobody has anything to do, and the search is not over"
        self.now, _, what, trial, nimg = heapq.heappop(self.events)
        if what == "measured":
            history = self.histories[trial, 0]
            self.histories[trial, nimg] = history
            self.director.measured(trial, nimg, value_of(trial, history, nimg))
            if nimg >= self.director.member(trial).total:
                self._at(trial, "end", nimg)
        elif what == "fail":
            self.director.ended(trial, "it fell over")
        else:
            self.director.ended(trial)
