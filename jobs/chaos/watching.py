"""How far a job is, and which processes train, by the events in its store alone: of runs, of trials, of stages alike."""

from __future__ import annotations

from typing import Any

from cluster.runs import Runs
from cluster.store import Store


class Progress:
    """Images that were seen so far, added up over everything in a store that trains."""

    def __init__(self, store: Store) -> None:
        self.store, self.runs = store, Runs(store)
        self._segments: dict[str, set[str]] = {}
        self._seen: dict[str, int] = {}
        self._pids: dict[str, list[int]] = {}
        self.events: list[dict[str, Any]] = []

    def look(self) -> int:
        """Reads what is new. Steps that are taken again after a blow do not count twice."""
        for run in self.store.folders("runs/"):
            for where in (run, *(f"{run}/trials/{trial}" for trial in self.store.folders(f"runs/{run}/trials/"))):
                for event in self.runs.events(where, self._segments.setdefault(where, set())):
                    self._hear(where, event)
        return sum(self._seen.values())

    def _hear(self, where: str, event: dict[str, Any]) -> None:
        self.events.append({"run": where, **event})
        if event["type"] in ("started", "resumed") and "pid" in event:
            self._pids[where] = event.get("pids") or [event["pid"]]
        if event["type"] == "trained" or (event["type"] == "run" and event["state"] != "running"):
            self._pids.pop(where, None)
        if event["type"] == "progress":
            self._seen[where] = max(event["nimg"], self._seen.get(where, 0))

    @property
    def pids(self) -> list[int]:
        """Processes that train now, as far as is known."""
        return [pid for where in sorted(self._pids) for pid in self._pids[where]]
