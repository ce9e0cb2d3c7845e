"""What is done to a run, and when: a function of the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WORKER, NODE, DRIVER, HEAD, TWIN = "worker", "node", "driver", "head", "twin"
KINDS = {
    WORKER: "one process that trains is killed",
    NODE: "a node that trains is killed with all its processes and its disk, and another one comes",
    DRIVER: "the process that drives the run is killed, and the same command given again",
    HEAD: "the cluster's head is killed, and with it all nodes; another cluster takes its place",
    TWIN: "the same command is given twice at once",
}
FIRST, LAST = 0.1, 0.9


@dataclass(frozen=True)
class Blow:
    """`kind` falls once the share `at` of all images is seen; `lot`, in [0, 1), chooses among several that it could hit."""

    kind: str
    at: float
    lot: float


def draw(kinds: list[str], count: int, seed: int) -> list[Blow]:
    """`count` blows in the order in which they fall; each kind once before any falls twice."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xC4A05]))
    order: list[str] = []
    while len(order) < count:
        order += [kinds[i] for i in rng.permutation(len(kinds))]
    moments = sorted(float(at) for at in rng.uniform(FIRST, LAST, count))
    return [
        Blow(kind, round(at, 3), float(lot)) for kind, at, lot in zip(order, moments, rng.random(count), strict=False)
    ]
