"""Why a training on Ray ended before its end, and whether it is taken up again.

crash        a worker or its node died without notice
preemption   a node was about to be taken away; the workers left with a checkpoint
capacity     there was no room for the workers
resize       there was room for more of them; not counted
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cluster.sections import RetrySpec
from tlgan.errors import RunFailed, TlganError

CRASH, PREEMPTION, CAPACITY, RESIZE, STOP = "crash", "preemption", "capacity", "resize", "stop"


@dataclass
class Restarts:
    """Counts by cause, against what the spec allows. `spent` raises when it is used up, and the record gets that reason."""

    allowed: RetrySpec
    seen: Counter[str] = field(default_factory=Counter)

    def spend(self, cause: str, error: TlganError | None = None) -> None:
        """One more restart for `cause`. Raises `RunFailed`, with what ended the last one, when there is none left."""
        if cause == CAPACITY and self.seen[cause] > self.allowed.wait_minutes:  # Ray gives up after a minute each time
            raise RunFailed(
                f"Ray found no room for the workers in {self.seen[cause]} tries{f': {error.message}' if error else ''}",
                hint="there seemed to be some: is it on nodes of which none can hold a worker?",
            )
        limit = {CRASH: self.allowed.crashes, PREEMPTION: self.allowed.preemptions}.get(cause)
        if limit is not None and self.seen[cause] >= limit:
            why = f"; the last one: {error.message}" if error else ""
            times = f"after {limit} restart{'s' * (limit != 1)}" if limit else "and no restart is allowed"
            name = {CRASH: "crashes", PREEMPTION: "preemptions"}[cause]
            raise RunFailed(
                f"the workers were lost by a {cause} {times}{why}",
                hint=f"the same command goes on from the last checkpoint; retry.{name} says how often that happens by itself",
            )
        self.seen[cause] += 1


def ending_of(error: BaseException) -> tuple[str | None, TlganError]:
    """What ended the workers by what Ray raised, None for what a restart can't mend, and the error to show."""
    shown = cause_of(error)
    names = {type(one).__name__ for one in chain_of(error)}
    if "PreemptionError" in names:
        return PREEMPTION, shown
    if names & {"WorkerGroupStartupTimeoutError", "WorkerGroupStartupFailedError"}:
        return CAPACITY, shown
    failures = [one for e in chain_of(error) for one in (getattr(e, "worker_failures", None) or {}).values()]
    if any(getattr(one, "preempted", False) for one in failures):
        return PREEMPTION, shown
    return (CRASH if failures else None), shown


def chain_of(error: BaseException) -> list[BaseException]:
    """An error, its causes, and what Ray wrapped."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.append(one)
        inside = (getattr(one, "cause", None), getattr(one, "controller_failure", None), one.__cause__)
        waiting += [e for e in inside if isinstance(e, BaseException)]
        workers = getattr(one, "worker_failures", None)
        if isinstance(workers, dict):
            waiting += [e for e in workers.values() if isinstance(e, BaseException)]
    return found


def cause_of(error: BaseException) -> TlganError:
    """The error of ours inside what Ray raised, or a `RunFailed` with the first line that says something."""
    for one in chain_of(error):
        if isinstance(one, TlganError):
            return one
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RunFailed(f"training failed: {lines[-1] if lines else type(error).__name__}", hint="see the run's Ray log")
