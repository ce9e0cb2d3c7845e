"""The right of one attempt of a run to write results: lost for good when a later attempt has begun."""

from __future__ import annotations

from cluster.runs import Runs
from cluster.store import leases
from cluster.store.base import Store
from cluster.store.claim import Claim
from tlgan.errors import Conflict


class Fence:
    """Call it before anything that others see: it raises `Conflict` once the run's record tells of a later attempt.

    `run` may be the prefix of a sweep's trial: the sweep's record counts. A run without a record has no attempts.
    """

    def __init__(self, store: Store, run: str, attempt: int) -> None:
        self.store = store
        self.claim = Claim(run=run.partition("/")[0], attempt=attempt)

    def __call__(self) -> None:
        record = Runs(self.store).find(self.claim.run)
        if record is not None and record.attempt > self.claim.attempt:
            raise Conflict(
                f"run {record.id} was taken over by attempt {record.attempt} (on {record.host}, process {record.pid}); "
                f"this is attempt {self.claim.attempt}, its results are not published",
                hint=f"`tlgan show {record.id}` shows the one that counts",
            )

    def shut_out_older(self) -> None:
        """To be called once when an attempt begins, after its record is written: what older ones are about to publish,
        they can't any more."""
        leases.break_older(self.store, self.claim)
