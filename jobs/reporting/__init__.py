"""The report of a run, assembled from what the store has: no cluster, no torch, nothing is written to the store."""

from jobs.reporting.collect import collect

__all__ = ["collect"]
